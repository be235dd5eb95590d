/*
 * origin: the cheapest HTTP/1.1 server that can be, for two uses.
 *
 *   As an origin behind the proxies that are measured: it must never be what limits them.
 *   As the floor: one bare epoll loop that answers canned bytes, which no real server beats.
 *
 *     origin -p PORT [-m MAX_AGE]
 *
 * The target says what is answered. The digits after its last slash are the body's length, `k` and
 * `m` standing for KiB and MiB; what follows them does not matter: /1k.bin, /64k-0042.bin, /f/1m.
 * A target that begins with /delayN/ is answered after N milliseconds. -m adds a Cache-Control
 * field with that max-age, for a proxy that is to answer from its cache. /answered tells how many
 * requests have been answered, those for it left out. Keep-alive, pipelining, HTTP/1.0 and
 * `Connection: close` are understood; request bodies are not. Date is when it was started: a clock
 * is not what is measured.
 *
 * It runs until it is killed, and writes "ready" once it listens. It trusts its clients: it is a
 * tool for the loopback, not a server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_CAP = 32 * 1024,      /* input kept of one connection: more than 16 pipelined heads */
    OUT_CAP = 128 * 1024,    /* answers collected before a write */
    SMALL = 8 * 1024,        /* bodies up to this are copied behind their heads */
    CANNED = 1024 * 1024,    /* longer bodies repeat these bytes */
    EVENTS = 256,
};

struct conn {
    uint32_t generation;     /* of this descriptor, so that a late timer finds nobody */
    int open, closing, waiting_out, delayed;
    uint64_t body_left;      /* of the answer under way */
    size_t out_len, out_sent;
    size_t in_len;
    char *out;               /* OUT_CAP while bytes wait to be sent, else NULL */
    char *in;                /* IN_CAP while a part of a request is held, else NULL */
};

struct timer {
    uint64_t due;
    uint64_t size;
    int fd;
    uint32_t generation;
    int close;
};

static struct conn *conns;
static size_t conns_cap;
static struct timer *heap;
static size_t heap_len, heap_cap;
static char canned[CANNED];
static char scratch_in[IN_CAP], scratch_out[OUT_CAP];
static char cache_control[64], date[32];
static uint64_t answered;
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- timers: a binary heap by due time ---- */

static void heap_push(struct timer t)
{
    if (heap_len == heap_cap) {
        heap_cap = heap_cap ? heap_cap * 2 : 1024;
        heap = realloc(heap, heap_cap * sizeof *heap);
        if (!heap) die("realloc");
    }
    size_t i = heap_len++;
    while (i && heap[(i - 1) / 2].due > t.due) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = t;
}

static struct timer heap_pop(void)
{
    struct timer top = heap[0], last = heap[--heap_len];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[i] = heap[child];
        i = child;
    }
    if (heap_len) heap[i] = last;
    return top;
}

/* ---- connections ---- */

static struct conn *conn_of(int fd)
{
    if ((size_t)fd >= conns_cap) {
        size_t cap = conns_cap ? conns_cap : 1024;
        while (cap <= (size_t)fd) cap *= 2;
        conns = realloc(conns, cap * sizeof *conns);
        if (!conns) die("realloc");
        memset(conns + conns_cap, 0, (cap - conns_cap) * sizeof *conns);
        conns_cap = cap;
    }
    return &conns[fd];
}

static void drop(int fd)
{
    struct conn *c = conn_of(fd);
    free(c->in);
    free(c->out);
    uint32_t generation = c->generation + 1;
    memset(c, 0, sizeof *c);
    c->generation = generation;
    close(fd);
}

static void watch(int fd, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.fd = fd };
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e)) die("epoll_ctl");
}

/* What one call to `flush` leaves: everything sent, the socket full, or the connection gone. */
enum sent { SENT, FULL, GONE };

/* Sends `buf` (from `*sent`) and then the body that is under way. */
static enum sent send_all(int fd, struct conn *c, const char *buf, size_t len, size_t *sent)
{
    while (*sent < len || c->body_left) {
        struct iovec v[2];
        int n = 0;
        if (*sent < len) {
            v[n].iov_base = (char *)buf + *sent;
            v[n++].iov_len = len - *sent;
        }
        if (c->body_left) {
            v[n].iov_base = canned;
            v[n++].iov_len = c->body_left < CANNED ? c->body_left : CANNED;
        }
        ssize_t done = n == 1 ? send(fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL)
                              : writev(fd, v, n);
        if (done < 0) return errno == EAGAIN ? FULL : GONE;
        size_t head = len - *sent < (size_t)done ? len - *sent : (size_t)done;
        *sent += head;
        c->body_left -= (uint64_t)done - head;
    }
    return SENT;
}

/* Puts what could not be sent aside and waits until the socket takes more. */
static void hold_output(int fd, struct conn *c, const char *buf, size_t len, size_t sent)
{
    if (sent < len) {
        c->out = malloc(OUT_CAP);
        if (!c->out) die("malloc");
        memcpy(c->out, buf + sent, len - sent);
    }
    c->out_len = len - sent;
    c->out_sent = 0;
    c->waiting_out = 1;
    watch(fd, EPOLLOUT);
}

static size_t put_head(char *to, uint64_t size, int close)
{
    /* Heads repeat: the last one is kept, so that the floor formats nothing. */
    static char last[256];
    static size_t last_len;
    static uint64_t last_size = UINT64_MAX;
    static int last_close;
    if (size != last_size || close != last_close) {
        last_len = (size_t)snprintf(last, sizeof last,
            "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: %s\r\n"
            "Content-Type: application/octet-stream\r\nContent-Length: %llu\r\n%s%s\r\n",
            date, (unsigned long long)size, cache_control, close ? "Connection: close\r\n" : "");
        last_size = size;
        last_close = close;
    }
    memcpy(to, last, last_len);
    return last_len;
}

struct wanted {
    uint64_t size;
    uint64_t delay_ms;
    int close;
    int count;               /* how many were answered is asked */
};

static int parse(const char *head, size_t len, struct wanted *w)
{
    const char *end = head + len;
    const char *target = memchr(head, ' ', len);
    if (!target || ++target == end) return -1;
    const char *stop = memchr(target, ' ', (size_t)(end - target));
    if (!stop || end - stop < 9) return -1;
    w->delay_ms = 0;
    w->count = !strncmp(target, "/answered ", 10);
    if (!strncmp(target, "/delay", 6)) w->delay_ms = strtoul(target + 6, NULL, 10);
    const char *digits = stop;
    while (digits > target && digits[-1] != '/') digits--;
    char *unit;
    w->size = strtoull(digits, &unit, 10);
    if (*unit == 'k') w->size <<= 10;
    else if (*unit == 'm') w->size <<= 20;
    w->close = stop[8] == '0' || memmem(stop, (size_t)(end - stop), "onnection: close", 16) != NULL;
    return 0;
}

static size_t put_count(char *to)
{
    char count[24];
    int len = snprintf(count, sizeof count, "%llu", (unsigned long long)answered);
    return (size_t)sprintf(to, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len, count);
}

/*
 * Answers what stands in buf; returns how many bytes of it were used, or -1 if the connection has
 * gone. Stops at a part of a request, at a delayed one, and where the socket is full.
 */
static ssize_t answer(int fd, struct conn *c, const char *buf, size_t len)
{
    size_t used = 0, out = 0;
    enum sent state = SENT;
    while (state == SENT && used < len && !c->delayed && !c->closing) {
        const char *end = memmem(buf + used, len - used, "\r\n\r\n", 4);
        if (!end) break;
        size_t head = (size_t)(end - (buf + used)) + 4;
        struct wanted w;
        if (parse(buf + used, head, &w)) return drop(fd), -1;
        used += head;
        c->closing = w.close;
        answered += !w.count;
        if (w.delay_ms) {
            c->delayed = 1;
            heap_push((struct timer){ now_ns() + w.delay_ms * 1000000u, w.size, fd,
                                      c->generation, w.close });
            break;
        }
        out += w.count ? put_count(scratch_out + out)
                       : put_head(scratch_out + out, w.size, w.close);
        if (w.size <= SMALL) {
            memcpy(scratch_out + out, canned, w.size);
            out += w.size;
        } else {
            c->body_left = w.size;
        }
        if (c->body_left || out > OUT_CAP - SMALL - 512) {
            size_t sent = 0;
            state = send_all(fd, c, scratch_out, out, &sent);
            if (state == FULL) hold_output(fd, c, scratch_out, out, sent);
            out = 0;
        }
    }
    if (state == SENT && out) {
        size_t sent = 0;
        state = send_all(fd, c, scratch_out, out, &sent);
        if (state == FULL) hold_output(fd, c, scratch_out, out, sent);
    }
    if (state == GONE) return drop(fd), -1;
    if (state == SENT && c->closing && !c->delayed) return drop(fd), -1;
    return (ssize_t)used;
}

/* Keeps what is left of the input for the next turn. */
static void hold_input(struct conn *c, const char *rest, size_t len)
{
    if (len) {
        if (!c->in && !(c->in = malloc(IN_CAP))) die("malloc");
        memmove(c->in, rest, len);
    } else {
        free(c->in);
        c->in = NULL;
    }
    c->in_len = len;
}

static void readable(int fd)
{
    struct conn *c = conn_of(fd);
    char *buf = c->in ? c->in : scratch_in;
    size_t have = c->in ? c->in_len : 0;
    if (have == IN_CAP) {
        if (c->delayed) return watch(fd, 0);
        return drop(fd);
    }
    ssize_t n = recv(fd, buf + have, IN_CAP - have, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        return drop(fd);
    }
    have += (size_t)n;
    ssize_t used = c->delayed ? 0 : answer(fd, c, buf, have);
    if (used < 0) return;
    if (have > (size_t)used || c->in) hold_input(c, buf + used, have - (size_t)used);
}

/* The socket takes bytes again, or a delay is over: goes on with what was held. */
static void go_on(int fd)
{
    struct conn *c = conn_of(fd);
    if (c->closing && !c->delayed) return drop(fd);
    if (!c->in) return;
    ssize_t used = answer(fd, c, c->in, c->in_len);
    if (used >= 0) hold_input(c, c->in + used, c->in_len - (size_t)used);
}

static void writable(int fd)
{
    struct conn *c = conn_of(fd);
    enum sent state = send_all(fd, c, c->out, c->out_len, &c->out_sent);
    if (state == FULL) return;
    if (state == GONE) return drop(fd);
    free(c->out);
    c->out = NULL;
    c->out_len = c->out_sent = 0;
    c->waiting_out = 0;
    watch(fd, EPOLLIN);
    go_on(fd);
}

static void fire(struct timer t)
{
    struct conn *c = conn_of(t.fd);
    if (!c->open || c->generation != t.generation) return;
    c->delayed = 0;
    size_t out = put_head(scratch_out, t.size, t.close), sent = 0;
    c->body_left = t.size;
    enum sent state = send_all(t.fd, c, scratch_out, out, &sent);
    if (state == GONE) return drop(t.fd);
    if (state == FULL) return hold_output(t.fd, c, scratch_out, out, sent);
    watch(t.fd, EPOLLIN);
    go_on(t.fd);
}

static void accept_all(int listener)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *c = conn_of(fd);
        c->open = 1;
        struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) die("bind");
    if (listen(fd, 4096)) die("listen");
    return fd;
}

static int wait_events(struct epoll_event *events)
{
    if (!heap_len) return epoll_wait(epoll_fd, events, EVENTS, -1);
    uint64_t now = now_ns(), left = heap[0].due > now ? heap[0].due - now : 0;
    /* In nanoseconds: epoll_wait's milliseconds would blur a delay of ten of them. */
    struct timespec t = { (time_t)(left / 1000000000u), (long)(left % 1000000000u) };
    return epoll_pwait2(epoll_fd, events, EVENTS, &t, NULL);
}

int main(int argc, char **argv)
{
    int port = 0, opt;
    while ((opt = getopt(argc, argv, "p:m:")) != -1) {
        if (opt == 'p') port = atoi(optarg);
        else if (opt == 'm') snprintf(cache_control, sizeof cache_control,
                                      "Cache-Control: max-age=%d\r\n", atoi(optarg));
        else return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1UL);
    memset(canned, 'x', sizeof canned);
    time_t now = time(NULL);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(port);
    struct epoll_event e = { .events = EPOLLIN, .data.fd = listener }, events[EVENTS];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e)) die("epoll_ctl");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int n = wait_events(events);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (conn_of(fd)->waiting_out) writable(fd);
            else readable(fd);
        }
        if (heap_len) {
            uint64_t now = now_ns();
            while (heap_len && heap[0].due <= now) fire(heap_pop());
        }
    }
}
