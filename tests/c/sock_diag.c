/* ext/sock_diag.h: answers of every length, and of the kernel. */
#define _GNU_SOURCE
#include "sock_diag.h"

#include "guard.h"

enum { WHOLE = 88, SEQUENCE = 7 };

static void answer_of(uint16_t type, uint32_t sequence, uint8_t *answer)
{
    const uint32_t uid = 1000, inode = 333;
    memset(answer, 0, WHOLE);
    memcpy(answer + 4, &type, 2);
    memcpy(answer + 8, &sequence, 4);
    memcpy(answer + 80, &uid, 4);
    memcpy(answer + 84, &inode, 4);
}

static int read_answer(const uint8_t *answer, size_t n, SothSocket *found)
{
    return soth_diag_answer((const uint8_t *)at_end(answer, n), n, SEQUENCE, found);
}

int main(void)
{
    uint8_t answer[WHOLE];
    SothSocket found = {0, 0};
    guard_open();

    answer_of(SOTH_SOCK_DIAG_BY_FAMILY, SEQUENCE, answer);
    answer[17] = 1;
    for (size_t n = 0; n < WHOLE; n++)
        CHECK(read_answer(answer, n, &found) == -EBADMSG, "%zu bytes pass for an answer", n);
    CHECK(read_answer(answer, WHOLE, &found) == SOTH_DIAG_FOUND && found.uid == 1000 && found.inode == 333, "%u, %u", found.uid, found.inode);
    answer[17] = SOTH_TCP_LISTEN;
    CHECK(read_answer(answer, WHOLE, &found) == SOTH_DIAG_NONE, "a listener passes for the client");
    answer_of(SOTH_SOCK_DIAG_BY_FAMILY, SEQUENCE - 1, answer);
    CHECK(read_answer(answer, WHOLE, &found) == -EBADMSG, "the answer to another question passes for ours");

    const int32_t codes[] = {-2, -1, 0, 5};
    const int expected[] = {SOTH_DIAG_NONE, -1, -EBADMSG, -EBADMSG};
    for (int i = 0; i < 4; i++) {
        answer_of(SOTH_NLMSG_ERROR, SEQUENCE, answer);
        memcpy(answer + SOTH_NETLINK_HEADER, &codes[i], 4);
        CHECK(read_answer(answer, 20, &found) == expected[i], "code %d", codes[i]);
        CHECK(read_answer(answer, 19, &found) == -EBADMSG, "half a code");
    }

    const SothEnd v6 = {.is_v6 = 1, .source = {0xfe, 0x80, [15] = 1}, .destination = {[15] = 2}, .source_port = 258, .destination_port = 443, .scope_id = 3};
    uint8_t request[SOTH_DIAG_REQUEST];
    soth_diag_request(&v6, SEQUENCE, request);
    CHECK(request[16] == SOTH_LINUX_AF_INET6 && request[24] == 1 && request[25] == 2 && request[26] == 1 && request[27] == 187, "family, ports");
    CHECK(request[28] == 0xfe && request[43] == 1 && request[59] == 2, "addresses");
    uint32_t number;
    CHECK(memcpy(&number, request + 60, 4) && number == 3, "interface %u", number);
    CHECK(memcpy(&number, request + 8, 4) && number == SEQUENCE, "sequence %u", number);
    return 0;
}
