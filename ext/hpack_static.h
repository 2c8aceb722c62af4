/* The static table of HPACK (RFC 7541 appendix A), each entry as the line that it stands for in a head. Index 0 is none. */
#ifndef SOTH_HPACK_STATIC_H
#define SOTH_HPACK_STATIC_H

#include <stdint.h>

enum { SOTH_HPACK_STATIC_COUNT = 61 };

typedef struct {
    const char *line; /* name, colon, blank, value, CRLF */
    uint8_t name_len;
    uint8_t value_len;
} SothHpackStatic;

static const SothHpackStatic soth_hpack_static[SOTH_HPACK_STATIC_COUNT + 1] = {
    {"", 0, 0},
    {":authority: \r\n", 10, 0},
    {":method: GET\r\n", 7, 3},
    {":method: POST\r\n", 7, 4},
    {":path: /\r\n", 5, 1},
    {":path: /index.html\r\n", 5, 11},
    {":scheme: http\r\n", 7, 4},
    {":scheme: https\r\n", 7, 5},
    {":status: 200\r\n", 7, 3},
    {":status: 204\r\n", 7, 3},
    {":status: 206\r\n", 7, 3},
    {":status: 304\r\n", 7, 3},
    {":status: 400\r\n", 7, 3},
    {":status: 404\r\n", 7, 3},
    {":status: 500\r\n", 7, 3},
    {"accept-charset: \r\n", 14, 0},
    {"accept-encoding: gzip, deflate\r\n", 15, 13},
    {"accept-language: \r\n", 15, 0},
    {"accept-ranges: \r\n", 13, 0},
    {"accept: \r\n", 6, 0},
    {"access-control-allow-origin: \r\n", 27, 0},
    {"age: \r\n", 3, 0},
    {"allow: \r\n", 5, 0},
    {"authorization: \r\n", 13, 0},
    {"cache-control: \r\n", 13, 0},
    {"content-disposition: \r\n", 19, 0},
    {"content-encoding: \r\n", 16, 0},
    {"content-language: \r\n", 16, 0},
    {"content-length: \r\n", 14, 0},
    {"content-location: \r\n", 16, 0},
    {"content-range: \r\n", 13, 0},
    {"content-type: \r\n", 12, 0},
    {"cookie: \r\n", 6, 0},
    {"date: \r\n", 4, 0},
    {"etag: \r\n", 4, 0},
    {"expect: \r\n", 6, 0},
    {"expires: \r\n", 7, 0},
    {"from: \r\n", 4, 0},
    {"host: \r\n", 4, 0},
    {"if-match: \r\n", 8, 0},
    {"if-modified-since: \r\n", 17, 0},
    {"if-none-match: \r\n", 13, 0},
    {"if-range: \r\n", 8, 0},
    {"if-unmodified-since: \r\n", 19, 0},
    {"last-modified: \r\n", 13, 0},
    {"link: \r\n", 4, 0},
    {"location: \r\n", 8, 0},
    {"max-forwards: \r\n", 12, 0},
    {"proxy-authenticate: \r\n", 18, 0},
    {"proxy-authorization: \r\n", 19, 0},
    {"range: \r\n", 5, 0},
    {"referer: \r\n", 7, 0},
    {"refresh: \r\n", 7, 0},
    {"retry-after: \r\n", 11, 0},
    {"server: \r\n", 6, 0},
    {"set-cookie: \r\n", 10, 0},
    {"strict-transport-security: \r\n", 25, 0},
    {"transfer-encoding: \r\n", 17, 0},
    {"user-agent: \r\n", 10, 0},
    {"vary: \r\n", 4, 0},
    {"via: \r\n", 3, 0},
    {"www-authenticate: \r\n", 16, 0},
};

#endif
