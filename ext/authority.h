/* `host [":" port]` as it stands in a Host field, in CONNECT and in an absolute URI (RFC 3986 section 3.2, without userinfo). */
#ifndef SOTH_AUTHORITY_H
#define SOTH_AUTHORITY_H

#include <stddef.h>
#include <stdint.h>

#include "hex.h"

enum { SOTH_MAX_HOST = 255 }; /* RFC 3986 section 3.2.2 */

static inline int soth_is_digit(char byte) { return (uint8_t)(byte - '0') < 10; }

/* dec-octet "." dec-octet "." dec-octet "." dec-octet */
static inline int soth_is_ipv4(const char *p, size_t n)
{
    size_t i = 0;
    for (int octet = 0; octet < 4; octet++) {
        unsigned value = 0;
        const size_t start = i;
        while (i < n && i - start < 3 && soth_is_digit(p[i]))
            value = value * 10 + (unsigned)(p[i++] - '0');
        if (i == start || value > 255 || (i - start > 1 && p[start] == '0'))
            return 0;
        if (octet < 3 && (i == n || p[i++] != '.'))
            return 0;
    }
    return i == n;
}

/* The text form of RFC 4291 section 2.2, without brackets and without a zone */
static inline int soth_is_ipv6(const char *p, size_t n)
{
    size_t i = 0;
    int groups = 0, gap = 0;
    if (n >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 1;
        i = 2;
        if (n == 2)
            return 1;
    }
    while (i < n) {
        const size_t start = i;
        while (i < n && i - start < 5 && soth_hex_digit(p[i]) >= 0)
            i++;
        if (i < n && p[i] == '.')
            return soth_is_ipv4(p + start, n - start) && (gap ? groups <= 5 : groups == 6);
        if (i == start || i - start > 4 || ++groups > 8)
            return 0;
        if (i == n)
            return gap ? groups <= 7 : groups == 8;
        if (p[i++] != ':')
            return 0;
        if (i < n && p[i] == ':') {
            if (gap)
                return 0;
            gap = 1;
            if (++i == n)
                return groups <= 7;
        }
    }
    return 0; /* empty, or it ends in a single colon */
}

/* reg-name: unreserved, sub-delims and complete percent triplets */
static inline int soth_is_reg_name(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char byte = p[i];
        if ((uint8_t)((byte | 0x20) - 'a') < 26 || soth_is_digit(byte))
            continue;
        switch (byte) {
        case '-': case '.': case '_': case '~':
        case '!': case '$': case '&': case '\'': case '(': case ')': case '*': case '+': case ',': case ';': case '=':
            continue;
        case '%':
            if (n - i < 3 || soth_hex_digit(p[i + 1]) < 0 || soth_hex_digit(p[i + 2]) < 0)
                return 0;
            i += 2;
            continue;
        default:
            return 0;
        }
    }
    return n > 0;
}

/* Split and check. The host's length (brackets included), 0 when the n bytes are no authority; *port is 0 when there is none, else 1 to
 * 65535. A colon without a port, which RFC 3986 would allow, is refused: the two ends of a proxy read it differently. */
static inline size_t soth_parse_authority(const char *p, size_t n, unsigned *port)
{
    size_t host = 0;
    *port = 0;
    if (n > 0 && p[0] == '[') {
        while (host < n && p[host] != ']')
            host++;
        if (host == n || !soth_is_ipv6(p + 1, host - 1))
            return 0;
        host++;
    } else {
        while (host < n && p[host] != ':')
            host++;
        if (host > SOTH_MAX_HOST || !soth_is_reg_name(p, host))
            return 0;
    }
    if (host == n)
        return host;
    const int64_t number = p[host] == ':' ? soth_parse_decimal(p + host + 1, n - host - 1) : SOTH_NUMBER_NONE;
    if (number < 1 || number > 65535)
        return 0;
    *port = (unsigned)number;
    return host;
}

#endif
