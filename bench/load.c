/*
 * load: connects subscribers, publishes, and tells how it went; `load raw` is the limit that gopush is held against.
 *
 *   load raw SUBSCRIBER-PORT PUBLISHER-PORT        a server: one send() for each message and subscriber, nothing else
 *   load run NAME=VALUE ...                        one measurement: connects, prints "ready", goes on when a line comes
 *                                                  in, prints NAME VALUE lines
 *
 * One thread, non-blocking sockets, epoll. Loopback only. What `run` takes is in the table `options` below.
 *
 * Each message is `{"t":"<publish time, 16 hex digits>","n":<serial, 10 digits>,"x":"..."}`: the clock of one machine
 * tells how long it took, and the serials of a key must come in ascending order.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef int64_t ns_t;

enum { SECOND = 1000000000, READ_BYTES = 1 << 20, EVENTS = 512, TIMEOUT_SECONDS = 20 };

static int poller;
static char input[READ_BYTES + 1];

static ns_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void stop_because(const char *reason)
{
    fprintf(stderr, "load: %s%s%s\n", reason, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void allow_all_files(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static void watch(int fd, uint32_t events, void *who)
{
    struct epoll_event event = {.events = events, .data.ptr = who};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        stop_because("epoll_ctl");
}

/* --- the limit: what the kernel can send --- */

struct raw_socket {
    enum { SUBSCRIBER_PORT, PUBLISHER_PORT, SUBSCRIBER, PUBLISHER } kind;
    int fd, place, filled;
    char *request;
};

static struct raw_socket **raw_subscribers;
static int raw_count, raw_room;

static void raw_listen(int port, int kind)
{
    struct raw_socket *it = calloc(1, sizeof *it);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    it->kind = kind;
    it->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(it->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(it->fd, (struct sockaddr *)&at, sizeof at) || listen(it->fd, 4096))
        stop_because("listen");
    watch(it->fd, EPOLLIN, it);
}

static void raw_accept(struct raw_socket *port)
{
    int fd, on = 1;
    while ((fd = accept4(port->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct raw_socket *it = calloc(1, sizeof *it);
        it->fd = fd;
        it->kind = port->kind + SUBSCRIBER;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (it->kind == SUBSCRIBER) {
            if (raw_count == raw_room)
                raw_subscribers = realloc(raw_subscribers, (raw_room = raw_room * 2 + 64) * sizeof *raw_subscribers);
            it->place = raw_count;
            raw_subscribers[raw_count++] = it;
        } else {
            it->request = malloc(READ_BYTES);
        }
        watch(fd, EPOLLIN, it);
    }
}

static void raw_close(struct raw_socket *it)
{
    if (it->kind == SUBSCRIBER) {
        raw_subscribers[it->place] = raw_subscribers[--raw_count];
        raw_subscribers[it->place]->place = it->place;
    }
    close(it->fd);
    free(it->request);
    free(it);
}

/* Sends the body of each complete request to everybody, one send() each. */
static int raw_publish(struct raw_socket *it)
{
    static char frame[READ_BYTES + 32];
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"ret\":0}";
    for (;;) {
        char *end = memmem(it->request, it->filled, "\r\n\r\n", 4), *length;
        int head, body, size;
        if (!end)
            return 0;
        *end = 0;
        length = strcasestr(it->request, "content-length:");
        *end = '\r';
        if (!length)
            return -1;
        head = end + 4 - it->request;
        body = atoi(length + 15);
        if (it->filled < head + body)
            return 0;
        size = sprintf(frame, "$%d\r\n", body);
        memcpy(frame + size, it->request + head, body);
        memcpy(frame + size + body, "\r\n", 2);
        size += body + 2;
        for (int i = 0; i < raw_count; i++)
            (void)!send(raw_subscribers[i]->fd, frame, size, MSG_NOSIGNAL);
        (void)!send(it->fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
        it->filled -= head + body;
        memmove(it->request, it->request + head + body, it->filled);
    }
}

static void raw_event(struct raw_socket *it)
{
    ssize_t got;
    if (it->kind < SUBSCRIBER) {
        raw_accept(it);
    } else if (it->kind == SUBSCRIBER) {
        if ((got = recv(it->fd, input, READ_BYTES, 0)) > 0)
            (void)!send(it->fd, "+h\r\n", 4, MSG_NOSIGNAL);
        else if (got == 0 || errno != EAGAIN)
            raw_close(it);
    } else {
        got = recv(it->fd, it->request + it->filled, READ_BYTES - it->filled, 0);
        if (got > 0)
            it->filled += got;
        if (got == 0 || (got < 0 && errno != EAGAIN) || raw_publish(it) < 0)
            raw_close(it);
    }
}

static void raw(int subscriber_port, int publisher_port)
{
    struct epoll_event events[EVENTS];
    raw_listen(subscriber_port, SUBSCRIBER_PORT);
    raw_listen(publisher_port, PUBLISHER_PORT);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++)
            raw_event(events[i].data.ptr);
    }
}

/* --- what a run is told --- */

static struct sockaddr_in subscribe_at, publish_at;
static enum { TCP, WEBSOCKET, STREAM, POLL } speak;
static const char *const spoken[] = {"tcp", "websocket", "stream", "poll"};

static long subscribers, keys = 1, publishers, messages, bytes = 100, window, pushes_per_second, expire;
static long keys_a_request = 1, reconnect, seconds = 30, at_once = 256, sources = 16, settle_ms = 500;
static long lag_seconds = 5, source_from = 2, expected;
static const char *prefix = "k", *way = "private";

static const struct {
    const char *name;
    long *value;
} options[] = {
    {"subscribers", &subscribers},   /* subscriber i takes key i modulo `keys` */
    {"keys", &keys},
    {"publishers", &publishers},     /* connections that push */
    {"messages", &messages},         /* pushed to each key; 0: as many as the time allows */
    {"bytes", &bytes},               /* of a message */
    {"window", &window},             /* messages that may be on their way to the subscribers; 0: any number */
    {"rate", &pushes_per_second},    /* 0: each publisher pushes as soon as it is answered */
    {"expire", &expire},             /* seconds that the server is told to keep a message */
    {"batch", &keys_a_request},      /* way=mprivate: keys of a request; way=bulk: lines of one */
    {"reconnect", &reconnect},       /* 1: each request has a connection of its own */
    {"seconds", &seconds},           /* the longest time that is published */
    {"at_once", &at_once},           /* connections that are made at the same time */
    {"sources", &sources},           /* addresses 127.0.0.x that connections come from */
    {"source", &source_from},        /* the first of them */
    {"settle", &settle_ms},          /* milliseconds between the last handshake and the first push */
    {"lag", &lag_seconds},           /* wait so long for deliveries, from the last one on */
    {"expect", &expected},           /* messages to each subscriber that others publish; 0: none */
};

static void parse_address(const char *text, struct sockaddr_in *address)
{
    char host[32];
    int port;
    address->sin_family = AF_INET;
    if (sscanf(text, "%31[0-9.]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &address->sin_addr) != 1 ||
        (ntohl(address->sin_addr.s_addr) >> 24) != 127)
        stop_because("an address is 127.x.x.x:port");
    address->sin_port = htons(port);
}

static void parse_option(char *argument)
{
    char *value = strchr(argument, '=');
    errno = 0;
    if (!value)
        stop_because(argument);
    *value++ = 0;
    for (int i = TCP; i <= POLL; i++)
        if (!strcmp(argument, spoken[i])) {
            parse_address(value, &subscribe_at);
            speak = i;
            return;
        }
    if (!strcmp(argument, "admin")) {
        parse_address(value, &publish_at);
    } else if (!strcmp(argument, "prefix")) {
        prefix = value;
    } else if (!strcmp(argument, "way")) {
        way = value;
    } else {
        for (size_t i = 0; i < sizeof options / sizeof *options; i++)
            if (!strcmp(argument, options[i].name)) {
                *options[i].value = atol(value);
                return;
            }
        stop_because(argument);
    }
}

/* --- how long things took: 32 steps to a doubling --- */

struct times {
    long count[32 * 64], total;
    ns_t longest;
};

static void add_time(struct times *times, ns_t took)
{
    int exponent = 0;
    if (took < 0)
        took = 0;
    if (took > times->longest)
        times->longest = took;
    for (ns_t rest = took; rest >= 64; rest >>= 1)
        exponent++;
    times->count[exponent * 32 + (took >> exponent)]++;
    times->total++;
}

static double milliseconds(const struct times *times, double share)
{
    long wanted = share * times->total, seen = 0;
    for (int i = 0; i < 32 * 64; i++)
        if ((seen += times->count[i]) > wanted) {
            int exponent = i < 64 ? 0 : i / 32 - 1;
            return (double)((int64_t)(i - exponent * 32) << exponent) / 1e6;
        }
    return times->longest / 1e6;
}

static void print_times(const char *name, const struct times *times)
{
    if (times->total)
        printf("%s_p50 %.3f\n%s_p99 %.3f\n%s_p999 %.3f\n%s_max %.3f\n", name, milliseconds(times, .5), name,
               milliseconds(times, .99), name, milliseconds(times, .999), name, times->longest / 1e6);
}

/* --- subscribers --- */

struct client {
    enum { IS_SUBSCRIBER, IS_PUBLISHER, IS_TIMER } kind;
    int fd;
};

struct subscriber {
    struct client client;
    enum { CONNECTING, ASKED, UPGRADED, LIVE, GONE } state;
    int kept; /* bytes of a frame whose rest is still to come, in `rest` */
    char *rest;
    long key, last;
    long long cursor; /* of who polls */
    ns_t began;
};

static struct subscriber *all;
static long opened, live, opening, refused, cut, delivered, due, reads, disordered;
static long *live_of_key;
static ns_t first_handshake, last_handshake, first_delivery, last_delivery, read_at;
static struct times delivery_times, request_times, handshake_times;
static int measuring;

static int connect_from_any_source(const struct sockaddr_in *to, void *who)
{
    static long turn;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in from = {.sin_family = AF_INET};
    if (fd < 0)
        stop_because("socket");
    from.sin_addr.s_addr = htonl(0x7f000000 + source_from + turn++ % sources);
    setsockopt(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) ||
        (connect(fd, (const struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS)) {
        close(fd);
        return -1;
    }
    watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, who);
    return fd;
}

static void lose(struct subscriber *it)
{
    if (it->state == GONE)
        return;
    if (it->state == LIVE) {
        live--;
        cut++;
        live_of_key[it->key]--;
    } else {
        opening--;
        refused++;
    }
    it->state = GONE;
    if (it->client.fd >= 0)
        close(it->client.fd);
    free(it->rest);
    it->rest = NULL;
}

static void open_more(void)
{
    while (opened < subscribers && opening < at_once) {
        struct subscriber *it = &all[opened];
        it->client.kind = IS_SUBSCRIBER;
        it->key = opened++ % keys;
        it->began = now();
        opening++;
        if ((it->client.fd = connect_from_any_source(&subscribe_at, it)) < 0)
            lose(it);
    }
}

static void say(struct subscriber *it, const char *data, int size)
{
    if (send(it->client.fd, data, size, MSG_NOSIGNAL) != size)
        lose(it);
}

static void went_live(struct subscriber *it);

static void ask(struct subscriber *it)
{
    char key[64], request[512];
    int size, length = sprintf(key, "%s%07ld", prefix, it->key);
    if (speak == STREAM)
        size = sprintf(request, "GET /sub?key=%s&heartbeat=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", key);
    else if (speak == POLL)
        size = sprintf(request, "GET /1/msg/get?k=%s&m=%lld&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", key,
                       it->cursor);
    else if (speak == WEBSOCKET)
        size = sprintf(request,
                       "GET /sub?key=%s&heartbeat=60&ver=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: Z29wdXNoIGlzIGZhc3QgIQ==\r\n\r\n", key);
    else
        size = sprintf(request, "*5\r\n$3\r\nsub\r\n$%d\r\n%s\r\n$2\r\n60\r\n$1\r\nt\r\n$1\r\n1\r\n", length, key);
    if (it->state == CONNECTING)
        it->state = ASKED;
    say(it, request, size);
    if (speak == POLL)
        went_live(it);
}

static void went_live(struct subscriber *it)
{
    if (it->state == LIVE || it->state == GONE)
        return;
    it->state = LIVE;
    last_handshake = now();
    add_time(&handshake_times, last_handshake - it->began);
    opening--;
    live++;
    live_of_key[it->key]++;
}

static void take_message(struct subscriber *it, const char *data, int size)
{
    const char *at = memmem(data, size, "{\"t\":\"", 6);
    long serial;
    if (!at || !measuring)
        return;
    serial = atol(at + 28);
    disordered += serial <= it->last;
    it->last = serial;
    if (!delivered++)
        first_delivery = read_at;
    last_delivery = read_at;
    add_time(&delivery_times, read_at - (ns_t)strtoull(at + 6, NULL, 16));
}

/* The size of the line or message at the start of `data`, 0: not all of it is there, -1: a refusal. */
static int take_tcp(struct subscriber *it, const char *data, int size)
{
    const char *end = memchr(data, '\n', size);
    int head = end ? end + 1 - data : 0, body;
    if (!end)
        return 0;
    if (*data == '-')
        return -1;
    if (*data == '+') {
        went_live(it);
        return head;
    }
    body = atoi(data + 1);
    if (size < head + body + 2)
        return 0;
    take_message(it, data + head, body);
    return head + body + 2;
}

static int take_websocket(struct subscriber *it, const char *data, int size)
{
    const unsigned char *frame = (const unsigned char *)data;
    long body, head = 2;
    if (it->state == ASKED) {
        const char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end)
            return 0;
        it->state = UPGRADED;
        return strncmp(data, "HTTP/1.1 101", 12) ? -1 : end + 4 - data;
    }
    if (size < 2 || (frame[1] == 126 && size < 4) || (frame[1] == 127 && size < 10))
        return 0;
    body = frame[1];
    if (body >= 126) {
        int width = body == 126 ? 2 : 8;
        body = 0;
        for (int i = 0; i < width; i++)
            body = body << 8 | frame[2 + i];
        head += width;
    }
    if (size < head + body)
        return 0;
    if ((frame[0] & 15) == 8 || data[head] == '-')
        return -1;
    if (data[head] == '+')
        went_live(it);
    else
        take_message(it, data + head, body);
    return head + body;
}

/* A chunk of an event stream: the beginning, a message, a comment. */
static int take_stream(struct subscriber *it, const char *data, int size)
{
    const char *end = memmem(data, size, it->state == ASKED ? "\r\n\r\n" : "\r\n", it->state == ASKED ? 4 : 2);
    int head = end ? end - data : 0, body;
    if (!end)
        return 0;
    if (it->state == ASKED) {
        it->state = UPGRADED;
        return strncmp(data, "HTTP/1.1 200", 12) ? -1 : head + 4;
    }
    body = strtol(data, NULL, 16);
    head += 2;
    if (size < head + body + 2)
        return 0;
    if (!body || memmem(data + head, body, "event: refused", 14))
        return -1;
    went_live(it);
    take_message(it, data + head, body);
    return head + body + 2;
}

/* An answer to who polls, who asks again behind the last message. */
static int take_poll(struct subscriber *it, const char *data, int size)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4), *length, *at, *until;
    if (!end)
        return 0;
    length = memmem(data, end - data, "Content-Length: ", 16);
    until = length ? end + 4 + atoi(length + 16) : memmem(end, data + size - end, "\r\n0\r\n\r\n", 7);
    if (!until || until > data + size)
        return 0;
    until += length ? 0 : 7;
    if (strncmp(data, "HTTP/1.1 200", 12) || (measuring && !memmem(data, until - data, "\"ret\":0", 7)))
        return -1;
    for (at = end; (at = memmem(at, until - at, "{\"t\":\"", 6)); at++)
        take_message(it, at, until - at);
    for (at = end; (at = memmem(at, until - at, "\"mid\":", 6)); at++)
        it->cursor = atoll(at + 6);
    ask(it);
    return until - data;
}

static int (*const take[])(struct subscriber *, const char *, int) = {take_tcp, take_websocket, take_stream, take_poll};

static void read_subscriber(struct subscriber *it)
{
    for (;;) {
        int size, at = 0, taken = 1;
        ssize_t got;
        memcpy(input, it->rest, it->kept);
        got = recv(it->client.fd, input + it->kept, READ_BYTES - it->kept, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            lose(it);
            return;
        }
        read_at = now();
        reads += measuring;
        size = it->kept + got;
        while (at < size && taken > 0) {
            taken = take[speak](it, input + at, size - at);
            if (taken < 0) {
                lose(it);
                return;
            }
            at += taken;
        }
        it->kept = size - at;
        it->rest = realloc(it->rest, it->kept + 1);
        memcpy(it->rest, input + at, it->kept);
        if (it->kept == 0) {
            free(it->rest);
            it->rest = NULL;
        }
        if (got < READ_BYTES / 2)
            return;
    }
}

static void subscriber_event(struct subscriber *it, uint32_t events)
{
    if (it->state == CONNECTING && events & (EPOLLERR | EPOLLHUP))
        lose(it);
    else if (it->state == CONNECTING && events & EPOLLOUT)
        ask(it);
    else if (it->state != CONNECTING && it->state != GONE && events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
        read_subscriber(it);
}

/* --- publishers --- */

struct publisher {
    struct client client;
    int busy, filled, sent, size, room;
    long lines; /* answers that are still to come: 1, or those of a bulk call */
    ns_t began;
    char *request, answer[READ_BYTES / 8];
};

static struct publisher *publisher;
static struct publisher **resting;
static long resting_count, serial, requests, failed, turn_key, rounds;

static void rest_again(struct publisher *it)
{
    it->busy = 0;
    resting[resting_count++] = it;
}

static void hang_up(struct publisher *it)
{
    if (it->client.fd >= 0)
        close(it->client.fd);
    it->client.fd = -1;
}

static void give_up(struct publisher *it)
{
    hang_up(it);
    if (it->busy) {
        failed++;
        requests++;
        rest_again(it);
    }
}

static void flush(struct publisher *it)
{
    ssize_t went;
    if (it->sent == it->size)
        return;
    went = send(it->client.fd, it->request + it->sent, it->size - it->sent, MSG_NOSIGNAL);
    if (went > 0)
        it->sent += went;
    else if (went < 0 && errno != EAGAIN && errno != ENOTCONN)
        give_up(it);
}

static int message(char *to, ns_t at)
{
    int size = sprintf(to, "{\"t\":\"%016llx\",\"n\":%010ld,\"x\":\"", (unsigned long long)at, ++serial + 1000000000);
    memset(to + size, 'x', bytes - size - 2);
    memcpy(to + bytes - 2, "\"}", 2);
    return bytes;
}

static int quoted(char *to, const char *from, int size)
{
    char *start = to;
    while (size--) {
        if (*from == '"')
            *to++ = '\\';
        *to++ = *from++;
    }
    return to - start;
}

/* Writes the body of a request that pushes to `count` keys from `key` on. */
static int body_of(char *to, long key, long count, ns_t at)
{
    static char one[READ_BYTES];
    char *start = to;
    if (!strcmp(way, "bulk")) {
        for (long i = 0; i < count; i++) {
            to += sprintf(to, "{\"k\":\"%s%07ld\",\"expire\":%ld,\"m\":", prefix, (key + i) % keys, expire);
            to += message(to, at);
            to += sprintf(to, "}\n");
        }
    } else if (!strcmp(way, "mprivate")) {
        to += sprintf(to, "{\"m\":\"");
        to += quoted(to, one, message(one, at));
        to += sprintf(to, "\",\"k\":\"");
        for (long i = 0; i < count; i++)
            to += sprintf(to, "%s%s%07ld", i ? "," : "", prefix, (key + i) % keys);
        to += sprintf(to, "\"}");
    } else {
        to += message(to, at);
    }
    return to - start;
}

static void publish(struct publisher *it, ns_t at)
{
    long key = turn_key, count = keys_a_request;
    int room = (bytes * (strcmp(way, "bulk") ? 1 : count) + count * 64) * 2 + 1024, body, head;
    if (pushes_per_second)
        key = random() % keys;
    else if ((turn_key += count) >= keys)
        turn_key = 0, rounds++;
    if (it->room < room)
        it->request = realloc(it->request, it->room = room);
    body = body_of(it->request + 512, key, count, at);
    if (!strcmp(way, "private"))
        head = sprintf(it->request, "POST /1/admin/push/private?key=%s%07ld&expire=%ld HTTP/1.1\r\n", prefix, key, expire);
    else
        head = sprintf(it->request, "POST /1/admin/push/%s?expire=%ld HTTP/1.1\r\n", way, expire);
    head += sprintf(it->request + head, "Host: localhost\r\n%sContent-Length: %d\r\n\r\n",
                    reconnect ? "Connection: close\r\n" : "", body);
    memmove(it->request + head, it->request + 512, body);
    it->size = head + body;
    it->sent = it->filled = 0;
    it->lines = strcmp(way, "bulk") ? 1 : count;
    it->busy = 1;
    it->began = at;
    for (long i = 0; i < count; i++)
        due += live_of_key[(key + i) % keys];
    if (it->client.fd < 0 && (it->client.fd = connect_from_any_source(&publish_at, it)) < 0)
        give_up(it);
    else
        flush(it);
}

/* How many answers to pushes are in what was read; -1: the request failed. */
static long answers_in(const char *data)
{
    long found = 0;
    for (const char *at = data; (at = strstr(at, "\"ret\":")); at += 6) {
        if (at[6] != '0')
            return -1;
        found++;
    }
    return strncmp(data, "HTTP/1.1 200", 12) ? -1 : found;
}

static int complete(struct publisher *it)
{
    char *end = strstr(it->answer, "\r\n\r\n"), *length;
    if (!end)
        return 0;
    if (!strcmp(way, "bulk"))
        return it->filled >= 5 && !strcmp(it->answer + it->filled - 5, "0\r\n\r\n");
    length = strcasestr(it->answer, "content-length:");
    return length && it->answer + it->filled >= end + 4 + atoi(length + 15);
}

static void publisher_event(struct publisher *it, uint32_t events)
{
    ssize_t got;
    if (it->client.fd < 0)
        return;
    if (events & EPOLLOUT && it->busy)
        flush(it);
    while (it->client.fd >= 0) {
        got = recv(it->client.fd, it->answer + it->filled, sizeof it->answer - 1 - it->filled, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            give_up(it);
            return;
        }
        it->filled += got;
        it->answer[it->filled] = 0;
        if (!it->busy || !complete(it))
            continue;
        requests++;
        failed += answers_in(it->answer) != it->lines;
        if (measuring)
            add_time(&request_times, now() - it->began);
        it->filled = 0;
        if (reconnect)
            hang_up(it);
        rest_again(it);
    }
}

/* --- a run --- */

static void turn(int wait_ms)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poller, events, EVENTS, wait_ms);
    for (int i = 0; i < ready; i++) {
        struct client *client = events[i].data.ptr;
        uint64_t ticks;
        if (client->kind == IS_SUBSCRIBER)
            subscriber_event((struct subscriber *)client, events[i].events);
        else if (client->kind == IS_PUBLISHER)
            publisher_event((struct publisher *)client, events[i].events);
        else
            (void)!read(client->fd, &ticks, sizeof ticks);
    }
}

static void heartbeat(void)
{
    static ns_t last;
    if (now() - last < 40ll * SECOND || speak > WEBSOCKET)
        return;
    if (last)
        for (long i = 0; i < opened; i++)
            if (all[i].state == LIVE)
                say(&all[i], speak == WEBSOCKET ? "\x81\x81\0\0\0\0h" : "h", speak == WEBSOCKET ? 7 : 1);
    last = now();
}

static void pass(double for_seconds)
{
    for (ns_t end = now() + for_seconds * SECOND; now() < end; heartbeat())
        turn(20);
}

static void subscribe_all(void)
{
    first_handshake = last_handshake = now();
    while (opened < subscribers || opening) {
        open_more();
        turn(50);
        for (long i = 0; opening && i < opened; i++)
            if (all[i].state < LIVE && now() - all[i].began > (ns_t)TIMEOUT_SECONDS * SECOND)
                lose(&all[i]);
    }
}

static void wait_for_line(void)
{
    struct pollfd line = {0, POLLIN, 0};
    printf("ready %ld\n", live);
    fflush(stdout);
    while (poll(&line, 1, 0) == 0)
        pass(.02);
    if (getchar() == EOF)
        exit(1);
}

static void publish_in_window(ns_t end)
{
    long of_one = subscribers ? (subscribers + keys - 1) / keys : 1;
    while ((!messages || rounds < messages) && now() < end) {
        while (resting_count && (!messages || rounds < messages) &&
               (!window || due - delivered < window * of_one * keys_a_request))
            publish(resting[--resting_count], now());
        turn(10);
        heartbeat();
    }
}

static void publish_at_rate(ns_t end)
{
    struct client timer = {IS_TIMER, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)};
    ns_t gap = SECOND / pushes_per_second, next = now() + gap;
    watch(timer.fd, EPOLLIN, &timer);
    while (next < end) {
        struct itimerspec alarm = {.it_value = {next / SECOND, next % SECOND}};
        if (now() < next)
            timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &alarm, NULL);
        for (; next <= now() && resting_count; next += gap)
            publish(resting[--resting_count], next);
        turn(next <= now() ? 1 : 100);
        heartbeat();
    }
    close(timer.fd);
}

static void wait_for_deliveries(void)
{
    long before = -1;
    ns_t since = now();
    while ((delivered < due || resting_count < publishers) && now() - since < lag_seconds * (ns_t)SECOND) {
        turn(20);
        heartbeat();
        if (delivered + requests != before) {
            before = delivered + requests;
            since = now();
        }
    }
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(ns_t began, ns_t ended, double cpu)
{
    double published = (ended - began) / 1e9, opened_in = (last_handshake - first_handshake) / 1e9;
    double delivered_in = (last_delivery - first_delivery) / 1e9;
    printf("live %ld\nrefused %ld\nclosed %ld\n", live, refused, cut);
    if (subscribers)
        printf("handshakes_per_second %.0f\n", opened_in > 0 ? (live + cut) / opened_in : 0);
    printf("requests %ld\nfailed %ld\nrequests_per_second %.0f\n", requests, failed, requests / published);
    printf("pushes_per_second %.0f\n", requests * keys_a_request / published);
    if (subscribers)
        printf("due %ld\ndelivered %ld\nlost %ld\ndisordered %ld\ndeliveries_per_second %.0f\ndelivery_seconds %.3f\n"
               "messages_per_read %.2f\n", due, delivered, due - delivered, disordered,
               delivered_in > 0 ? delivered / delivered_in : 0, delivered_in, reads ? (double)delivered / reads : 0);
    printf("seconds %.3f\nload_cpu %.3f\n", (now() - began) / 1e9, cpu_seconds() - cpu);
    print_times("delivery", &delivery_times);
    print_times("request", &request_times);
    print_times("handshake", &handshake_times);
}

static int run(void)
{
    ns_t began, ended;
    double cpu;
    if (bytes < 64 || bytes > READ_BYTES / 8 || keys < 1 || sources < 1 || seconds > 600 || keys_a_request > 20000)
        stop_because("an option is out of range");
    all = calloc(subscribers + 1, sizeof *all);
    live_of_key = calloc(keys, sizeof *live_of_key);
    publisher = calloc(publishers + 1, sizeof *publisher);
    resting = calloc(publishers + 1, sizeof *resting);
    for (long i = 0; i < publishers; i++) {
        publisher[i].client = (struct client){IS_PUBLISHER, -1};
        rest_again(&publisher[i]);
    }
    heartbeat();
    subscribe_all();
    pass(settle_ms / 1e3);
    measuring = 1;
    wait_for_line();
    due = expected * live;
    began = now();
    cpu = cpu_seconds();
    if (publishers && pushes_per_second)
        publish_at_rate(began + seconds * (ns_t)SECOND);
    else if (publishers)
        publish_in_window(began + seconds * (ns_t)SECOND);
    ended = now();
    wait_for_deliveries();
    report(began, ended, cpu);
    return 0;
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    allow_all_files();
    poller = epoll_create1(0);
    if (count == 4 && !strcmp(arguments[1], "raw"))
        raw(atoi(arguments[2]), atoi(arguments[3]));
    if (count < 3 || strcmp(arguments[1], "run"))
        stop_because("load raw PORT PORT | load run NAME=VALUE ...");
    for (int i = 2; i < count; i++)
        parse_option(arguments[i]);
    return run();
}
