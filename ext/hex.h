/* Hexadecimal and decimal numbers of the wire: digits only, no sign, no white space, and an overflow is an answer of its own. */
#ifndef SOTH_HEX_H
#define SOTH_HEX_H

#include <stddef.h>
#include <stdint.h>

enum { SOTH_NUMBER_NONE = -1, SOTH_NUMBER_OVERFLOW = -2 };

/* The value of one digit, either case; -1 when it is none. */
static inline int soth_hex_digit(char byte)
{
    const uint8_t digit = (uint8_t)byte;
    if ((uint8_t)(digit - '0') < 10)
        return digit - '0';
    if ((uint8_t)((digit | 0x20) - 'a') < 6)
        return (digit | 0x20) - 'a' + 10;
    return -1;
}

/* The number that the hexadecimal digits at p begin with, at most `max_digits` of them (16 or fewer); *used is how many there are.
 * SOTH_NUMBER_NONE: there is no digit. SOTH_NUMBER_OVERFLOW: more digits, or more than an int64_t holds. */
static inline int64_t soth_parse_hex(const char *p, size_t n, size_t max_digits, size_t *used)
{
    uint64_t value = 0;
    size_t i = 0;
    for (; i < n; i++) {
        const int digit = soth_hex_digit(p[i]);
        if (digit < 0)
            break;
        if (i == max_digits || value >> 59)
            return SOTH_NUMBER_OVERFLOW;
        value = value << 4 | (uint64_t)digit;
    }
    *used = i;
    return i ? (int64_t)value : SOTH_NUMBER_NONE;
}

/* The number that the n bytes at p are, decimal digits all of them. SOTH_NUMBER_NONE: empty, or another byte among them. */
static inline int64_t soth_parse_decimal(const char *p, size_t n)
{
    int64_t value = 0;
    int overflow = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned digit = (unsigned)(uint8_t)p[i] - '0';
        if (digit > 9)
            return SOTH_NUMBER_NONE;
        if (value > (INT64_MAX - (int64_t)digit) / 10)
            overflow = 1;
        else
            value = value * 10 + (int64_t)digit;
    }
    if (n == 0)
        return SOTH_NUMBER_NONE;
    return overflow ? SOTH_NUMBER_OVERFLOW : value;
}

#endif
