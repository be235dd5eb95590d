/*
 * handler: the cheapest application there can be, for measuring what runs applications.
 *
 *     handler BODY
 *
 * With LISTEN_FDS in the environment it speaks HTTP/1.1 on descriptor 3, else FastCGI on
 * descriptor 0: what `processes` gives to a program. It answers every request with BODY, one
 * connection after the other and all requests of a connection, without looking at more of them
 * than it must: where they end, and for FastCGI their id and whether to keep the connection.
 * Requests with bodies are not for it. It trusts its clients and runs until it is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_CAP = 64 * 1024,
    RECORD = 8,              /* the head of a record */
    BEGIN = 1, END = 3, PARAMS = 4, STDIN = 5, STDOUT = 6,
    KEEP = 1,
};

static unsigned char in[IN_CAP];
static char http[1024], content[1024];
static unsigned char records[2048];
static size_t http_len, content_len, records_len;

static int all_sent(int fd, const void *at, size_t len)
{
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        at = (const char *)at + n;
        len -= (size_t)n;
    }
    return 1;
}

/* Reads more behind what is held; false at the end, or if there is no room. */
static int more(int fd, size_t *held)
{
    ssize_t n = *held < IN_CAP ? recv(fd, in + *held, IN_CAP - *held, 0) : 0;
    if (n <= 0) return 0;
    *held += (size_t)n;
    return 1;
}

static void consume(size_t *held, size_t len)
{
    *held -= len;
    memmove(in, in + len, *held);
}

/* ---- HTTP ---- */

static void serve_http(int fd)
{
    size_t held = 0;
    for (;;) {
        const unsigned char *end = memmem(in, held, "\r\n\r\n", 4);
        if (!end) {
            if (!more(fd, &held)) return;
            continue;
        }
        int closes = memmem(in, (size_t)(end - in), "onnection: close", 16) != NULL;
        consume(&held, (size_t)(end - in) + 4);
        if (!all_sent(fd, http, http_len) || closes) return;
    }
}

/* ---- FastCGI ---- */

static size_t record(unsigned char *at, int type, const void *data, size_t len)
{
    unsigned char head[RECORD] = { 1, (unsigned char)type, 0, 0, (unsigned char)(len >> 8),
                                   (unsigned char)len, 0, 0 };
    memcpy(at, head, RECORD);
    memcpy(at + RECORD, data, len);
    return RECORD + len;
}

/* The three records of every answer; their ids are filled in when it is given. */
static void make_records(void)
{
    static const unsigned char nothing[8];
    records_len = record(records, STDOUT, content, content_len);
    records_len += record(records + records_len, STDOUT, nothing, 0);
    records_len += record(records + records_len, END, nothing, sizeof nothing);
}

static int answer(int fd, unsigned char id_high, unsigned char id_low)
{
    size_t second = RECORD + content_len, third = second + RECORD;
    records[2] = records[second + 2] = records[third + 2] = id_high;
    records[3] = records[second + 3] = records[third + 3] = id_low;
    return all_sent(fd, records, records_len);
}

static void serve_fastcgi(int fd)
{
    size_t held = 0;
    int keeps = 0;
    for (;;) {
        size_t len = held < RECORD ? 0 : RECORD + (size_t)(in[4] << 8 | in[5]) + in[6];
        if (!len || held < len) {
            if (!more(fd, &held)) return;
            continue;
        }
        if (in[1] == BEGIN) keeps = in[RECORD + 2] & KEEP;
        /* The end of a body that is empty is the end of the request. */
        int is_whole = in[1] == STDIN && len == RECORD;
        unsigned char high = in[2], low = in[3];
        consume(&held, len);
        if (is_whole && (!answer(fd, high, low) || !keeps)) return;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 || strlen(argv[1]) > 512) {
        fprintf(stderr, "usage: handler BODY, with a listening socket; see handler.c\n");
        return 2;
    }
    int is_http = getenv("LISTEN_FDS") != NULL, listener = is_http ? 3 : 0;
    const char *fields = "Content-Type: text/plain\r\nContent-Length";
    http_len = (size_t)snprintf(http, sizeof http, "HTTP/1.1 200 OK\r\n%s: %zu\r\n\r\n%s", fields,
                                strlen(argv[1]), argv[1]);
    content_len = (size_t)snprintf(content, sizeof content, "%s: %zu\r\n\r\n%s", fields,
                                   strlen(argv[1]), argv[1]);
    make_records();
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            perror("accept");
            return 1;
        }
        if (is_http) serve_http(fd);
        else serve_fastcgi(fd);
        close(fd);
    }
}
