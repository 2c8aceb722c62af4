/* ext/hex.h: digits, ends of the range, and nothing read beyond what was given. */
#define _GNU_SOURCE
#include "hex.h"

#include "guard.h"

static void check_hex(const char *text, int64_t expected, size_t expected_used)
{
    const size_t n = strlen(text);
    size_t used = 99;
    const int64_t value = soth_parse_hex(at_end(text, n), n, 16, &used);
    CHECK(value == expected, "%s gave %lld", text, (long long)value);
    if (expected != SOTH_NUMBER_OVERFLOW)
        CHECK(used == expected_used, "%s used %zu", text, used);
}

static void check_decimal(const char *text, int64_t expected)
{
    const size_t n = strlen(text);
    const int64_t value = soth_parse_decimal(at_end(text, n), n);
    CHECK(value == expected, "%s gave %lld", text, (long long)value);
}

int main(void)
{
    guard_open();
    for (int byte = 0; byte < 256; byte++) {
        int expected = -1;
        for (int digit = 0; digit < 16; digit++)
            if (byte == "0123456789abcdef"[digit] || byte == "0123456789ABCDEF"[digit])
                expected = digit;
        CHECK(soth_hex_digit((char)byte) == expected, "byte %d", byte);
    }
    check_hex("", SOTH_NUMBER_NONE, 0);
    check_hex("0", 0, 1);
    check_hex("a", 10, 1);
    check_hex("fF;x", 255, 2);
    check_hex("g", SOTH_NUMBER_NONE, 0);
    check_hex("-1", SOTH_NUMBER_NONE, 0);
    check_hex("+1", SOTH_NUMBER_NONE, 0);
    check_hex(" 1", SOTH_NUMBER_NONE, 0);
    check_hex("0x1", 0, 1);
    check_hex("7fffffffffffffff", INT64_MAX, 16);
    check_hex("8000000000000000", SOTH_NUMBER_OVERFLOW, 0);
    check_hex("ffffffffffffffff", SOTH_NUMBER_OVERFLOW, 0);
    check_hex("0000000000000001", 1, 16);
    check_hex("00000000000000001", SOTH_NUMBER_OVERFLOW, 0);

    check_decimal("", SOTH_NUMBER_NONE);
    check_decimal("0", 0);
    check_decimal("007", 7);
    check_decimal("9223372036854775807", INT64_MAX);
    check_decimal("9223372036854775808", SOTH_NUMBER_OVERFLOW);
    check_decimal("99999999999999999999999999", SOTH_NUMBER_OVERFLOW);
    check_decimal("99999999999999999999999999x", SOTH_NUMBER_NONE);
    check_decimal("1 ", SOTH_NUMBER_NONE);
    check_decimal("-1", SOTH_NUMBER_NONE);
    check_decimal("1a", SOTH_NUMBER_NONE);
    check_decimal("\xb2", SOTH_NUMBER_NONE);
    return 0;
}
