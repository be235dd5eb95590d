"""Processes: starting them on given cores, what they cost, and ending them, and only them."""

import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True)
STOP_SECONDS = 3


class BenchError(Exception):
    """Something that this run cannot go on without, told to the user as one sentence."""


def _stat_fields(pid):
    """The fields of /proc/PID/stat after the command name, or None if the process has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid):
    """When the process started, in ticks since boot: with the pid it names a process for good."""
    fields = _stat_fields(pid)
    return fields and fields[19]


def descendants(pid):
    """The pids of all living descendants of a process, itself left out."""
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _stat_fields(int(name))
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def cpu_seconds(pids):
    """CPU time, user and system, that these processes have used so far.

    Read from each process's CPU clock: it counts in nanoseconds and keeps what ended threads have
    used, while utime and stime in /proc/PID/stat are sampled by the timer's ticks.
    """
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process
        except OSError:
            pass  # Ended meanwhile; what it used before the last reading is lost.
    return total


def cpu_seconds_of_ended(pids):
    """CPU time of all children of these processes that have ended, and of theirs, so far.

    Counted in nanoseconds by the kernel, told in ticks of 10 ms: for long rounds only.
    """
    ticks = 0
    for pid in pids:
        fields = _stat_fields(pid)
        ticks += int(fields[13]) + int(fields[14]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def anonymous_kib(pid):
    """Memory of a process that is its alone."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def pss_bytes(pids):
    """Memory of these processes in user space: pages shared among several counted in parts."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                        break
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def settled_pss(pids, seconds=6.0):
    """The memory once it has not changed by more than 16 KiB for a second, or after `seconds`."""
    end = time.monotonic() + seconds
    last, since = pss_bytes(pids), time.monotonic()
    while time.monotonic() < end:
        time.sleep(0.1)
        now = pss_bytes(pids)
        if abs(now - last) > 16 * 1024:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= 1:
            return now
    return pss_bytes(pids)


def busy_seconds(core):
    """CPU time that anything at all has used on a core so far, at the clock tick's resolution."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[0] == f"cpu{core}":
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
                busy = user + nice + system + irq + softirq + steal
                return busy / os.sysconf("SC_CLK_TCK")
    return 0.0


class Process:
    """A process that this run has started, with whatever it starts itself."""

    def __init__(self, popen, name, log):
        self.popen = popen
        self.name = name
        self.log = log

    @property
    def pid(self):
        return self.popen.pid

    def pids(self):
        """The process and all its descendants."""
        return [self.pid, *descendants(self.pid)]

    def check(self):
        """Raises if the process has ended, with the last lines that it wrote."""
        if self.popen.poll() is not None:
            raise BenchError(
                f"{self.name} ended with status {self.popen.returncode}: {self.tail()}")

    def tail(self):
        if not self.log:
            return "(no output)"
        with open(self.log, encoding="utf-8", errors="replace") as file:
            said = " / ".join(file.read().strip().splitlines()[-5:])
        # The end is what counts; a stack's trace must not bury the table.
        return (said if len(said) <= 300 else f"… {said[-300:]}") or "(no output)"


class Keeper:
    """Starts processes and ends every one of them, whatever happens."""

    def __init__(self):
        # Orphans (a worker whose master was killed) become ours, so that they can be found.
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.running = []
        parent = os.getpid()

        def in_child(cores, priority):
            os.sched_setaffinity(0, cores)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            if priority:
                try:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
                except PermissionError:
                    pass  # Without the right the client's own waits show in its latencies.

        self._in_child = in_child

    def start(self, name, argv, cores, *, env=None, cwd=None, log=None, pipes=False,
              priority=False):
        """Starts a process on these cores; its output goes to the file `log`, or to pipes."""
        out = open(log, "ab") if log else subprocess.DEVNULL
        try:
            popen = subprocess.Popen(
                [str(arg) for arg in argv],
                env={**os.environ, **(env or {})},
                cwd=cwd,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                # Ctrl-C is for this program alone, which then ends the others in order.
                start_new_session=True,
                preexec_fn=lambda: self._in_child(cores, priority),
                text=pipes,
            )
        finally:
            if log:
                out.close()
        process = Process(popen, name, log)
        self.running.append(process)
        return process

    def stop(self, process):
        """Asks a process to end, then makes it; its descendants too."""
        if process not in self.running:
            return
        family = [(pid, start_time(pid)) for pid in process.pids()]
        if process.popen.poll() is None:
            process.popen.terminate()
            try:
                process.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        for pipe in (process.popen.stdin, process.popen.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self.running.remove(process)
        self._end([entry for entry in family if entry[0] != process.pid])

    def _end(self, family):
        """Ends processes named by pid and start time: a pid that was given anew is left alone."""
        alive = [(pid, began) for pid, began in family if began and start_time(pid) == began]
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid, _ in alive:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + 1
            while alive and time.monotonic() < end:
                self._reap([pid for pid, _ in alive])
                alive = [(pid, began) for pid, began in alive if start_time(pid) == began]
                time.sleep(0.01)
            if not alive:
                return

    @staticmethod
    def _reap(pids):
        for pid in pids:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass

    def stop_all(self):
        while self.running:
            self.stop(self.running[-1])
        mine = descendants(os.getpid())
        self._end([(pid, start_time(pid)) for pid in mine])
