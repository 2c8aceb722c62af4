/* ext/authority.h: hosts and ports, IPv6 against the system's inet_pton. */
#define _GNU_SOURCE
#include "authority.h"

#include <arpa/inet.h>

#include "guard.h"

static void check(const char *text, size_t host, unsigned port)
{
    const size_t n = strlen(text);
    unsigned found = 99;
    const size_t length = soth_parse_authority(at_end(text, n), n, &found);
    CHECK(length == host, "%s: host of %zu", text, length);
    if (host)
        CHECK(found == port, "%s: port %u", text, found);
}

static void check_ipv6_against_system(void)
{
    char text[48];
    unsigned char address[16];
    size_t good = 0;
    srand(6);
    for (int round = 0; round < 400000; round++) {
        const size_t pieces = (size_t)rand() % 10;
        size_t n = 0;
        for (size_t i = 0; i < pieces; i++) {
            static const char *const piece[] = {":", "::", "0", "1", "f", "ab", "FFFF", "12345", "1.2.3.4", "256.1.1.1", ".", "g"};
            const char *next = piece[(size_t)rand() % (rand() % 3 ? 7 : 12)];
            if (i > 0 && rand() % 4)
                next = i % 2 ? ":" : "a1";
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", next);
            if (n >= 40)
                break;
        }
        text[n] = 0;
        const int expected = inet_pton(AF_INET6, text, address) == 1;
        good += (size_t)expected;
        CHECK(soth_is_ipv6(at_end(text, n), n) == expected, "%s", text);
    }
    CHECK(good > 1000, "only %zu addresses were valid", good);
    static const char *const full[] = {
        "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::", "::1", "1::", "1:::2", "1::2::3",
        "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3.4", "::1.2.3", "1:2:3:4:5::1.2.3.4", "1.2.3.4", ":1", "1:", "", "fe80::1%eth0",
    };
    for (size_t i = 0; i < sizeof full / sizeof *full; i++)
        CHECK(soth_is_ipv6(at_end(full[i], strlen(full[i])), strlen(full[i])) == (inet_pton(AF_INET6, full[i], address) == 1), "%s", full[i]);
}

int main(void)
{
    char name[SOTH_MAX_HOST + 1];
    guard_open();
    check("a", 1, 0);
    check("example.com:80", 11, 80);
    check("Example_1-x.~:65535", 13, 65535);
    check("127.0.0.1:1", 9, 1);
    check("[::1]", 5, 0);
    check("[2001:db8::1]:443", 13, 443);
    check("a%41b", 5, 0);
    check("a!$&'()*+,;=", 12, 0);
    check("999.1.1.1", 9, 0); /* a reg-name, if a strange one */
    check("", 0, 0);
    check(":80", 0, 0);
    check("a:", 0, 0);
    check("a:0", 0, 0);
    check("a:65536", 0, 0);
    check("a:99999999999999999999", 0, 0);
    check("a:80x", 0, 0);
    check("a:-1", 0, 0);
    check("a:80:80", 0, 0);
    check("u@a", 0, 0);
    check("a/b", 0, 0);
    check("a b", 0, 0);
    check("a%4", 0, 0);
    check("a%zz", 0, 0);
    check("a\xe9", 0, 0);
    check("[::1", 0, 0);
    check("[]", 0, 0);
    check("[::1]x", 0, 0);
    check("[::1]:", 0, 0);
    check("[v1.a]", 0, 0);
    check("[fe80::1%25eth0]", 0, 0);
    check("::1", 0, 0);
    memset(name, 'a', sizeof name);
    unsigned port;
    CHECK(soth_parse_authority(at_end(name, SOTH_MAX_HOST), SOTH_MAX_HOST, &port) == SOTH_MAX_HOST, "the longest name");
    CHECK(soth_parse_authority(at_end(name, SOTH_MAX_HOST + 1), SOTH_MAX_HOST + 1, &port) == 0, "a longer name");
    check_ipv6_against_system();
    return 0;
}
