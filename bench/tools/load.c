/*
 * load: an HTTP/1.1 load generator that is cheaper than the servers it measures, in one thread.
 *
 *     load -p PORT -f REQUESTS [-m MODE] [-c CONNECTIONS] [-l BODY_LENGTH] …
 *
 * REQUESTS is a file of requests, each preceded by its length as a 32-bit number in the machine's
 * byte order. With several, each connection takes them at random (seeded, so that every server
 * sees the same ones): all alike, or with -z S the first ones more often, as Zipf's law with the
 * exponent S says; or with -o N in their order, from the Nth on, beginning anew behind the last.
 *
 *   run   requests until the time (-d seconds) or the count (-n) is reached, then the answers that
 *         are still due, so that what was asked is what was answered. -P sends that many requests
 *         in one write and waits for all their answers; -k takes a connection per request;
 *         -r paces the whole to that many requests a second.
 *   idle  one request on each connection, then "ready"; they are kept until a line comes on stdin.
 *   hold  as idle, but "ready" once all requests are sent: their answers are awaited afterwards.
 *   slow  each connection asks once and reads -b bytes every -i milliseconds, until stdin speaks.
 *
 * At the end it writes one line of JSON: what was done, what went wrong, and the latencies as
 * `[lower bound in ns, count]` pairs whose widths are within 0.2 %; likewise, as `connecting`, how
 * long each connection took until it could be written to. An answer counts if its status is 200
 * and its body has the length given by -l.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <math.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
    READ_CAP = 256 * 1024,  /* one read: as much as the second-level cache bears */
    HEAD_CAP = 16 * 1024,   /* a response head that came in parts */
    EVENTS = 256,
    OPENING = 64,           /* connections opened at once, below any listener's backlog */
    STALL_SECONDS = 20,     /* nothing at all came for this long: what is due has failed */
    SUB = 512,              /* histogram buckets per power of two */
};

enum mode { RUN, IDLE, HOLD, SLOW };

struct request {
    const char *at;
    uint32_t len;
};

struct conn {
    int fd;                 /* -1: none */
    int connecting, awaiting_eof, server_closes;
    uint32_t due;           /* answers still to come */
    uint64_t body_left;
    uint64_t sent_at;       /* when it was opened, while it connects */
    size_t held_len;
    char *held;             /* the beginning of a head, else NULL */
    char *unsent;           /* the rest of a batch that did not fit, else NULL */
    size_t unsent_len, unsent_done;
    uint64_t got;           /* bytes, in slow mode */
};

static struct {
    uint64_t answers, bytes, connects, reconnects;
    uint64_t bad_status, bad_length, bad_head, broken, refused, timed_out;
    uint64_t latency_sum, latency_max;
} total;

static struct conn *conns;
static struct request *requests;
static uint32_t request_count;
static uint64_t histogram[64 * SUB], connecting[64 * SUB];
static char buf[READ_CAP];
static char *batch;
static size_t batch_cap;
static int epoll_fd, port, conn_count = 64, depth = 1, per_request, stopping;
static enum mode mode = RUN;
static uint64_t expected = UINT64_MAX, count_limit = UINT64_MAX, asked, seed = 1;
static uint64_t next_in_order = UINT64_MAX;  /* UINT64_MAX: they are drawn */
static uint64_t in_flight, deadline, last_progress, rate, pace_start, paced;
static int *waiting, waiting_len;   /* connections that wait for their slot, when paced */

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

static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(((seed >> 32) * below) >> 32);
}

/* ---- Zipf's law: the alias method, one draw and one look whatever the number of requests ---- */

static struct alias {
    uint32_t stays;         /* of 2^32 draws of this place, how many stay */
    uint32_t other;         /* where the others go */
} *zipf;

static void make_zipf(double exponent)
{
    double *share = malloc(request_count * sizeof *share), sum = 0;
    uint32_t *todo = malloc(request_count * sizeof *todo), small = 0, large = request_count;
    zipf = malloc(request_count * sizeof *zipf);
    if (!share || !todo || !zipf) die("malloc");
    for (uint32_t i = 0; i < request_count; i++) sum += share[i] = pow(i + 1, -exponent);
    for (uint32_t i = 0; i < request_count; i++) {
        share[i] *= request_count / sum;
        /* The rare ones from the front, the others from the back. */
        if (share[i] < 1) todo[small++] = i;
        else todo[--large] = i;
    }
    while (small && large < request_count) {
        uint32_t rare = todo[--small], often = todo[large];
        zipf[rare] = (struct alias){ (uint32_t)(share[rare] * 4294967295.0), often };
        share[often] -= 1 - share[rare];
        if (share[often] < 1) {
            large++;
            todo[small++] = often;
        }
    }
    while (small) zipf[todo[--small]] = (struct alias){ UINT32_MAX, 0 };
    while (large < request_count) zipf[todo[large++]] = (struct alias){ UINT32_MAX, 0 };
    free(share);
    free(todo);
}

/* ---- histogram: SUB linear buckets in every power of two ---- */

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < SUB) return (uint32_t)ns;
    int shift = 63 - __builtin_clzll(ns) - 9;  /* 9: log2(SUB) */
    return (uint32_t)(shift + 1) * SUB + (uint32_t)((ns >> shift) - SUB);
}

static uint64_t bucket_floor(uint32_t bucket)
{
    if (bucket < SUB) return bucket;
    return (uint64_t)(bucket % SUB + SUB) << (bucket / SUB - 1);
}

static void record(uint64_t ns)
{
    histogram[bucket_of(ns)]++;
    total.latency_sum += ns;
    if (ns > total.latency_max) total.latency_max = ns;
}

/* ---- connections ---- */

static void forget(struct conn *c)
{
    if (c->fd >= 0) close(c->fd);
    free(c->held);
    free(c->unsent);
    in_flight -= c->due;
    uint64_t got = c->got;
    memset(c, 0, sizeof *c);
    c->got = got;
    c->fd = -1;
}

static void watch(struct conn *c, int op, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    if (epoll_ctl(epoll_fd, op, c->fd, &e)) die("epoll_ctl");
}

static void open_conn(struct conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    int one = 1, small = 16 * 1024;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (mode == SLOW) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (per_request) {
        /* Several source addresses: what is in TIME_WAIT must not decide about the result. */
        struct sockaddr_in from = { .sin_family = AF_INET };
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(total.connects & 15));
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    }
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    total.connects++;
    c->sent_at = now_ns();
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        total.refused++;
        return forget(c);
    }
    c->connecting = 1;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* Sends what is left of the batch; false if the connection broke. */
static int send_rest(struct conn *c, const char *at, size_t len)
{
    ssize_t n = send(c->fd, at, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return 0;
    size_t done = n < 0 ? 0 : (size_t)n;
    if (done < len) {
        if (!c->unsent) {
            c->unsent = malloc(len - done);
            if (!c->unsent) die("malloc");
            memcpy(c->unsent, at + done, len - done);
            c->unsent_len = len - done;
            watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        } else {
            c->unsent_done += done;
        }
    } else if (c->unsent) {
        free(c->unsent);
        c->unsent = NULL;
        c->unsent_done = c->unsent_len = 0;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
    return 1;
}

static const struct request *pick(void)
{
    if (next_in_order != UINT64_MAX) return &requests[next_in_order++ % request_count];
    if (request_count == 1) return &requests[0];
    uint32_t drawn = draw(request_count);
    if (zipf && draw(UINT32_MAX) >= zipf[drawn].stays) drawn = zipf[drawn].other;
    return &requests[drawn];
}

static int ask(struct conn *c)
{
    if (stopping || asked >= count_limit) {
        stopping = 1;
        return 1;
    }
    const char *at;
    size_t len = 0;
    if (depth == 1) {
        const struct request *r = pick();
        at = r->at;
        len = r->len;
    } else {
        for (int i = 0; i < depth; i++) {
            const struct request *r = pick();
            if (len + r->len > batch_cap) {
                batch_cap = (len + r->len) * 2;
                batch = realloc(batch, batch_cap);
                if (!batch) die("realloc");
            }
            memcpy(batch + len, r->at, r->len);
            len += r->len;
        }
        at = batch;
    }
    asked += (uint64_t)depth;
    c->due = (uint32_t)depth;
    in_flight += (uint64_t)depth;
    c->sent_at = now_ns();
    return send_rest(c, at, len);
}

static void broken(struct conn *c)
{
    total.broken += c->due ? c->due : 1;
    forget(c);
}

/* Starts again on a new connection, or leaves this one closed. */
static void renew(struct conn *c)
{
    forget(c);
    if (stopping || mode != RUN) return;
    total.reconnects++;
    open_conn(c);
}

/* Asks at once, or when the pace allows it. */
static void next(struct conn *c)
{
    if (rate) {
        waiting[waiting_len++] = (int)(c - conns);
        return;
    }
    if (!ask(c)) {
        broken(c);
        if (!stopping) open_conn(c);
    }
}

/* ---- answers ---- */

static int field_is(const char *line, size_t len, const char *name, size_t name_len)
{
    return len > name_len && line[name_len] == ':' && !strncasecmp(line, name, name_len);
}

/* Reads a whole head; false if it is none that this tool understands. */
static int read_head(struct conn *c, const char *head, size_t len)
{
    int have_length = 0;
    uint64_t length = 0;
    if (len < 13 || memcmp(head, "HTTP/1.", 7)) return 0;
    if (memcmp(head + 9, "200", 3)) total.bad_status++;
    const char *line = memchr(head, '\n', len), *end = head + len;
    while (line && ++line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) break;
        size_t n = (size_t)(stop - line);
        if ((*line | 32) == 'c') {
            if (field_is(line, n, "content-length", 14)) {
                length = strtoull(line + 15, NULL, 10);
                have_length = 1;
            } else if (field_is(line, n, "connection", 10)) {
                c->server_closes = memmem(line, n, "lose", 4) != NULL;
            }
        }
        line = stop;
    }
    if (!have_length) return 0;
    if (expected != UINT64_MAX && length != expected) total.bad_length++;
    c->body_left = length;
    return 1;
}

static void answered(struct conn *c)
{
    total.answers++;
    c->due--;
    in_flight--;
    record(now_ns() - c->sent_at);
}

/* Takes received bytes; false if they make no sense. */
static int take(struct conn *c, const char *at, size_t len)
{
    while (len) {
        if (c->body_left) {
            size_t n = c->body_left < len ? (size_t)c->body_left : len;
            c->body_left -= n;
            at += n;
            len -= n;
            if (!c->body_left) answered(c);
            continue;
        }
        if (!c->due) return 0;
        const char *end = memmem(at, len, "\r\n\r\n", 4);
        if (!end) {
            if (len > HEAD_CAP) return 0;
            c->held = malloc(HEAD_CAP);
            if (!c->held) die("malloc");
            memcpy(c->held, at, len);
            c->held_len = len;
            return 1;
        }
        size_t head = (size_t)(end - at) + 4;
        if (!read_head(c, at, head)) return 0;
        at += head;
        len -= head;
        if (!c->body_left) answered(c);
    }
    return 1;
}

/* Joins a head that came in parts, then goes on as usual. */
static int take_held(struct conn *c, const char *at, size_t len)
{
    size_t room = HEAD_CAP - c->held_len, n = len < room ? len : room;
    size_t before = c->held_len;
    memcpy(c->held + before, at, n);
    c->held_len += n;
    const char *end = memmem(c->held, c->held_len, "\r\n\r\n", 4);
    if (!end) return c->held_len < HEAD_CAP;
    size_t head = (size_t)(end - c->held) + 4;
    char *held = c->held;
    c->held = NULL;
    c->held_len = 0;
    int ok = read_head(c, held, head);
    free(held);
    if (!ok) return 0;
    if (!c->body_left) answered(c);
    size_t used = head - before;
    return take(c, at + used, len - used);
}

static void ended(struct conn *c)
{
    if (c->due || (!c->awaiting_eof && !c->server_closes)) {
        /* An idle connection closed between two requests is no failure of a request. */
        if (c->due) total.broken += c->due;
    }
    renew(c);
}

static void readable(struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, buf, READ_CAP, 0);
        if (n < 0) {
            if (errno == EAGAIN) return;
            if (c->due) total.broken += c->due;
            return renew(c);
        }
        if (n == 0) return ended(c);
        total.bytes += (uint64_t)n;
        if (!(c->held ? take_held(c, buf, (size_t)n) : take(c, buf, (size_t)n))) {
            total.bad_head++;
            return renew(c);
        }
        if (c->due) {
            if (n < READ_CAP) return;
            continue;
        }
        if (mode != RUN) return;
        if (per_request) c->awaiting_eof = 1;
        else if (c->server_closes) return renew(c);
        else return next(c);
        if (n < READ_CAP) return;
    }
}

static void writable(struct conn *c)
{
    if (c->connecting) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) {
            total.refused++;
            return renew(c);
        }
        c->connecting = 0;
        connecting[bucket_of(now_ns() - c->sent_at)]++;
        /* A slow reader reads when its time has come, not when there is something to read. */
        watch(c, EPOLL_CTL_MOD, mode == SLOW ? 0 : EPOLLIN);
        return next(c);
    }
    if (c->unsent && !send_rest(c, c->unsent + c->unsent_done, c->unsent_len - c->unsent_done)) {
        broken(c);
        if (!stopping) open_conn(c);
    }
}

/* Starts paced requests whose slot has come; one whose slot was missed counts from the slot. */
static void pace(void)
{
    uint64_t now = now_ns();
    while (waiting_len) {
        uint64_t slot = pace_start + paced * 1000000000u / rate;
        if (slot > now || stopping) return;
        struct conn *c = &conns[waiting[0]];
        memmove(waiting, waiting + 1, (size_t)--waiting_len * sizeof *waiting);
        paced++;
        if (c->fd < 0) continue;
        int late = now - slot > 2000000u;
        if (!ask(c)) {
            broken(c);
            open_conn(c);
        } else if (late && c->due) {
            c->sent_at = slot;
        }
    }
}

/* Waits at most `wait` nanoseconds for events and handles them; returns how many came. */
static int turn(uint64_t wait)
{
    struct epoll_event events[EVENTS];
    struct timespec t = { (time_t)(wait / 1000000000u), (long)(wait % 1000000000u) };
    int n = epoll_pwait2(epoll_fd, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->fd < 0) continue;
        if (c->connecting || events[i].events & EPOLLOUT) writable(c);
        if (c->fd >= 0 && !c->connecting && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            readable(c);
    }
    return n;
}

static int stdin_spoke(void)
{
    struct pollfd p = { .fd = 0, .events = POLLIN };
    return poll(&p, 1, 0) > 0;
}

static void run(void)
{
    for (int i = 0; i < conn_count; i++) open_conn(&conns[i]);
    last_progress = now_ns();
    while (!stopping || in_flight) {
        uint64_t now = now_ns(), wait = 100000000u;
        if (now >= deadline) stopping = 1;
        else if (deadline - now < wait) wait = deadline - now;
        if (now - last_progress > (uint64_t)STALL_SECONDS * 1000000000u) {
            total.timed_out = in_flight;
            return;
        }
        if (rate && waiting_len) {
            uint64_t slot = pace_start + paced * 1000000000u / rate;
            if (slot <= now) wait = 0;
            else if (slot - now < wait) wait = slot - now;
        }
        if (turn(wait) > 0) last_progress = now_ns();
        if (rate) pace();
        if (total.refused > 10000) return;
    }
}

/* Opens all connections, a few at a time; `done` says when one counts as opened. */
static void open_all(int (*done)(const struct conn *))
{
    uint64_t give_up = now_ns() + 120ull * 1000000000u;
    for (int next_conn = 0, first = 0; first < conn_count && now_ns() < give_up;) {
        while (next_conn < conn_count && next_conn < first + OPENING)
            open_conn(&conns[next_conn++]);
        turn(100000000u);
        while (first < next_conn && done(&conns[first])) first++;
    }
}

static int has_answer(const struct conn *c)
{
    return c->fd < 0 || (!c->connecting && !c->due);
}

static int has_asked(const struct conn *c)
{
    return c->fd < 0 || (!c->connecting && !c->unsent);
}

static void ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* Whether the server still keeps this connection. */
static int alive(const struct conn *c)
{
    char byte;
    if (c->fd < 0) return 0;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static uint64_t count_alive(void)
{
    uint64_t n = 0;
    for (int i = 0; i < conn_count; i++) n += (uint64_t)alive(&conns[i]);
    return n;
}

static uint64_t idle(void)
{
    open_all(mode == HOLD ? has_asked : has_answer);
    ready();
    while (!stdin_spoke()) turn(20000000u);
    uint64_t give_up = now_ns() + (uint64_t)STALL_SECONDS * 1000000000u;
    while (in_flight && now_ns() < give_up) turn(20000000u);
    total.timed_out = in_flight;
    return count_alive();
}

/* Reads a little of each connection in turn; no epoll, or it would be woken for every segment. */
static uint64_t slow(size_t bytes, uint64_t every_ms)
{
    uint64_t at_work = 0, tick = 5000000u, turn_no = 0, next_tick;
    open_all(has_asked);
    for (int i = 0; i < conn_count; i++)
        if (conns[i].fd >= 0) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, conns[i].fd, NULL);
    ready();
    uint64_t per_turn = (uint64_t)conn_count * tick / (every_ms * 1000000u);
    if (!per_turn) per_turn = 1;
    if (bytes > READ_CAP) bytes = READ_CAP;
    next_tick = now_ns();
    while (!stdin_spoke()) {
        for (uint64_t i = 0; i < per_turn; i++) {
            struct conn *c = &conns[turn_no++ % (uint64_t)conn_count];
            ssize_t n = c->fd < 0 ? 0 : recv(c->fd, buf, bytes, MSG_DONTWAIT);
            if (n > 0) {
                if (!c->got && memcmp(buf + 9, "200", 3)) total.bad_status++;
                c->got += (uint64_t)n;
                total.bytes += (uint64_t)n;
            } else if (c->fd >= 0 && (n == 0 || errno != EAGAIN)) {
                if (c->got < expected) total.broken++;
                forget(c);
            }
        }
        next_tick += tick;
        uint64_t now = now_ns();
        if (next_tick > now) usleep((useconds_t)((next_tick - now) / 1000));
    }
    for (int i = 0; i < conn_count; i++) at_work += conns[i].fd >= 0 && conns[i].got;
    return at_work;
}

static void write_pairs(const uint64_t *counts)
{
    const char *comma = "";
    for (uint32_t i = 0; i < 64 * SUB; i++) {
        if (!counts[i]) continue;
        printf("%s[%llu,%llu]", comma, (unsigned long long)bucket_floor(i),
               (unsigned long long)counts[i]);
        comma = ",";
    }
}

static void report(uint64_t started, uint64_t alive_count)
{
    printf("{\"answers\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"connects\":%llu,"
           "\"reconnects\":%llu,\"alive\":%llu,\"latency_sum_ns\":%llu,\"latency_max_ns\":%llu,",
           (unsigned long long)total.answers, (unsigned long long)total.bytes,
           (double)(now_ns() - started) / 1e9, (unsigned long long)total.connects,
           (unsigned long long)total.reconnects, (unsigned long long)alive_count,
           (unsigned long long)total.latency_sum, (unsigned long long)total.latency_max);
    printf("\"errors\":{\"status\":%llu,\"length\":%llu,\"head\":%llu,\"broken\":%llu,"
           "\"refused\":%llu,\"timeout\":%llu},\"histogram\":[",
           (unsigned long long)total.bad_status, (unsigned long long)total.bad_length,
           (unsigned long long)total.bad_head, (unsigned long long)total.broken,
           (unsigned long long)total.refused, (unsigned long long)total.timed_out);
    write_pairs(histogram);
    printf("],\"connecting\":[");
    write_pairs(connecting);
    puts("]}");
}

static void read_requests(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) die(path);
    size_t size = (size_t)s.st_size;
    char *all = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (all == MAP_FAILED) die(path);
    for (size_t at = 0; at + 4 <= size;) {
        uint32_t len;
        memcpy(&len, all + at, 4);
        if (len > size - at - 4) break;
        if (!(request_count & (request_count - 1))) {
            size_t room = request_count ? 2 * (size_t)request_count : 1;
            requests = realloc(requests, room * sizeof *requests);
            if (!requests) die("realloc");
        }
        requests[request_count++] = (struct request){ all + at + 4, len };
        at += 4 + len;
    }
    if (!request_count) {
        fprintf(stderr, "%s holds no request\n", path);
        exit(1);
    }
}

static enum mode mode_of(const char *name)
{
    if (!strcmp(name, "idle")) return IDLE;
    if (!strcmp(name, "hold")) return HOLD;
    if (!strcmp(name, "slow")) return SLOW;
    return RUN;
}

int main(int argc, char **argv)
{
    const char *file = NULL;
    double seconds = 86400;
    size_t slow_bytes = 8192;
    uint64_t slow_every = 250, alive_count = 0;
    double exponent = 0;
    int opt;
    while ((opt = getopt(argc, argv, "p:f:m:c:P:d:n:kr:l:s:b:i:z:o:")) != -1) {
        switch (opt) {
        case 'p': port = atoi(optarg); break;
        case 'f': file = optarg; break;
        case 'm': mode = mode_of(optarg); break;
        case 'c': conn_count = atoi(optarg); break;
        case 'P': depth = atoi(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': count_limit = strtoull(optarg, NULL, 10); break;
        case 'k': per_request = 1; break;
        case 'r': rate = strtoull(optarg, NULL, 10); break;
        case 'l': expected = strtoull(optarg, NULL, 10); break;
        case 's': seed = strtoull(optarg, NULL, 10) * 0x9e3779b97f4a7c15u | 1; break;
        case 'b': slow_bytes = strtoull(optarg, NULL, 10); break;
        case 'i': slow_every = strtoull(optarg, NULL, 10); break;
        case 'z': exponent = atof(optarg); break;
        case 'o': next_in_order = strtoull(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!port || !file || conn_count < 1 || depth < 1) {
        fprintf(stderr, "usage: load -p PORT -f REQUESTS [options]; see load.c\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1UL);
    read_requests(file);
    if (exponent > 0) make_zipf(exponent);
    conns = calloc((size_t)conn_count, sizeof *conns);
    waiting = calloc((size_t)conn_count + 1, sizeof *waiting);
    if (!conns || !waiting) die("calloc");
    for (int i = 0; i < conn_count; i++) conns[i].fd = -1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    uint64_t started = pace_start = now_ns();
    deadline = started + (uint64_t)(seconds * 1e9);
    if (mode == RUN) run();
    else if (mode == SLOW) alive_count = slow(slow_bytes, slow_every);
    else alive_count = idle();
    report(started, alive_count);
    return 0;
}
