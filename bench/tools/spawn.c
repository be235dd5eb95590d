/*
 * spawn: runs a program again and again, as cheaply as the system allows.
 *
 *     spawn COUNT MEMORY fork|vfork PROGRAM [FIELD=VALUE …]
 *
 * For each time: a pipe, a new process with the pipe as its standard output, the program with the
 * environment given, all it says read to its end, and its end waited for. `vfork` borrows the
 * parent's memory until the program runs, as posix_spawn does; `fork` copies it, of which MEMORY
 * KiB are there, all written to. At the end it writes one line of JSON: how often, how long it
 * took, and the processor time that it and the programs have used.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double used(int who)
{
    struct rusage r;
    getrusage(who, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec)
        + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void run(int borrows, char *program, char **environment)
{
    static char said[4096];
    static size_t len;       /* vfork may lose what a frame holds */
    int ends[2], status;
    ssize_t n;
    len = 0;
    if (pipe2(ends, O_CLOEXEC)) die("pipe2");
    char *arguments[] = { program, NULL };
    pid_t pid = borrows ? vfork() : fork();
    if (pid < 0) die("fork");
    if (!pid) {
        dup2(ends[1], 1);
        execve(program, arguments, environment);
        _exit(127);
    }
    close(ends[1]);
    while ((n = read(ends[0], said, sizeof said)) > 0) len += (size_t)n;
    close(ends[0]);
    if (waitpid(pid, &status, 0) != pid || status || !len) {
        fprintf(stderr, "%s failed: status %d, %zu bytes\n", program, status, len);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: spawn COUNT MEMORY fork|vfork PROGRAM …; see spawn.c\n");
        return 2;
    }
    long count = atol(argv[1]);
    size_t memory = (size_t)atol(argv[2]) * 1024;
    char *held = malloc(memory + 1);
    if (!held) die("malloc");
    memset(held, 1, memory + 1);
    double began = now();
    for (long i = 0; i < count; i++) run(!strcmp(argv[3], "vfork"), argv[4], argv + 5);
    double took = now() - began;
    printf("{\"answers\":%ld,\"seconds\":%.6f,\"cpu\":%.6f}\n", count, took,
           used(RUSAGE_SELF) + used(RUSAGE_CHILDREN));
    return held[memory] == 1 ? 0 : 1;
}
