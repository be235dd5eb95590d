//! The helper's side: programs are started, ended with all that they have started, and reaped.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use forebay_sys::net;
use forebay_sys::process::{
    self, ChildSignal, Ending, Launch, LaunchStep, Launcher, end_group, hold_group, next_ended,
};
use rustix::io::Errno;

use super::message::{MAX_START, News, StartMessage, Wish, read_wish, write_news};

/// Programs at one time, over all channels.
const MAX_PROGRAMS: usize = 4_096;
/// Channels: one for each worker, and some.
const MAX_CHANNELS: usize = 1_100;
/// News that wait for a worker that does not read. It is asked for two of each program.
const MAX_UNSENT: usize = 4 * MAX_PROGRAMS;
/// Messages of a channel that are handled before others have their turn.
const AT_ONCE: usize = 16;
/// How long programs that are killed at the end are waited for.
const LAST_ENDS: Duration = Duration::from_secs(1);

/// The programs of all channels.
pub struct Keeper {
    launcher: Launcher,
    null: File,
    signal: ChildSignal,
    channels: Vec<Channel>,
    /// By process id.
    programs: HashMap<u32, Program>,
    /// Process ids by channel and number.
    numbers: HashMap<(u32, u32), u32>,
    next_channel: u32,
    buffer: Vec<u8>,
}

struct Channel {
    id: u32,
    socket: OwnedFd,
    /// News that the socket did not take.
    unsent: VecDeque<Vec<u8>>,
}

struct Program {
    channel: u32,
    number: u32,
    /// When it is killed, once it was asked to end.
    killed_at: Option<Instant>,
}

impl Keeper {
    /// One that watches this process's children from now on: there is one of them in a process.
    pub fn new() -> io::Result<Keeper> {
        process::adopt_orphans()?;
        Ok(Keeper {
            launcher: Launcher::default(),
            null: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")?,
            signal: ChildSignal::watch()?,
            channels: Vec::new(),
            programs: HashMap::new(),
            numbers: HashMap::new(),
            next_channel: 0,
            buffer: vec![0; MAX_START],
        })
    }

    /// Takes another channel. False: there are too many.
    pub fn add(&mut self, socket: OwnedFd) -> io::Result<bool> {
        if self.channels.len() >= MAX_CHANNELS {
            return Ok(false);
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        self.channels.push(Channel {
            id: self.next_channel,
            socket,
            unsent: VecDeque::new(),
        });
        self.next_channel = self.next_channel.wrapping_add(1);
        Ok(true)
    }

    /// Readable when children have ended.
    pub fn signal(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// The sockets of the channels, and whether something waits to be sent there.
    pub fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let all = self.channels.iter();
        all.map(|channel| (channel.socket.as_fd(), !channel.unsent.is_empty()))
    }

    /// How long it may take until [`tick`](Keeper::tick) has something to do.
    pub fn patience(&self) -> Option<Duration> {
        let next = self.programs.values().filter_map(|one| one.killed_at).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Kills what was asked to end and did not.
    pub fn tick(&mut self) {
        let now = Instant::now();
        for (pid, program) in &mut self.programs {
            if program.killed_at.is_some_and(|at| at <= now) {
                program.killed_at = None;
                end_group(*pid, Ending::Kill);
            }
        }
    }

    /// Takes the ends of children.
    pub fn handle_ends(&mut self) {
        self.signal.clear();
        while let Some(pid) = next_ended() {
            if self.programs.contains_key(&pid) {
                // What it leaves behind, while its number still stands for its group.
                end_group(pid, Ending::Kill);
            }
            let Some(ended) = process::reap(pid) else {
                return;
            };
            // What programs have left behind are children too, which nobody asks for.
            if let Some(program) = self.programs.remove(&pid) {
                self.numbers.remove(&(program.channel, program.number));
                let news = News::Ended {
                    end: ended.end,
                    cpu_us: ended.cpu_us,
                };
                self.tell(program.channel, program.number, news);
            }
        }
    }

    /// Does what is asked for on a channel, by its place among [`sockets`](Keeper::sockets); false
    /// once it is gone.
    pub fn handle(&mut self, place: usize) -> bool {
        let id = self.channels[place].id;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_open = self.flush(id).is_ok();
        for _ in 0..AT_ONCE {
            if !is_open {
                break;
            }
            let socket = &self.channels[place].socket;
            let (len, fds) = match net::recv_with_fds(socket, &mut buffer) {
                Ok(received) => (received.len, received.fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => (0, Vec::new()),
            };
            is_open = match read_wish(&buffer[..len]) {
                Some((number, Wish::Start(start))) => {
                    self.start(id, number, &start, &fds);
                    true
                }
                Some((number, Wish::End { grace_ms })) => {
                    self.end(id, number, grace_ms);
                    true
                }
                Some((number, Wish::Hold { is_held })) => {
                    if let Some(pid) = self.numbers.get(&(id, number)) {
                        hold_group(*pid, is_held);
                    }
                    true
                }
                None => false,
            };
        }
        self.buffer = buffer;
        if !is_open {
            self.close(place);
        }
        is_open
    }

    /// The programs of a channel that is gone go too.
    fn close(&mut self, place: usize) {
        let gone = self.channels.remove(place);
        for (pid, program) in &self.programs {
            if program.channel == gone.id {
                end_group(*pid, Ending::Kill);
            }
        }
    }

    fn start(&mut self, channel: u32, number: u32, start: &StartMessage<'_>, fds: &[OwnedFd]) {
        let news = match self.launch(channel, number, start, fds) {
            Ok(pid) => {
                let program = Program {
                    channel,
                    number,
                    killed_at: None,
                };
                self.programs.insert(pid, program);
                self.numbers.insert((channel, number), pid);
                if !start.is_reported {
                    return;
                }
                News::Started { pid }
            }
            Err((step, errno)) => News::Failed { step, errno },
        };
        self.tell(channel, number, news);
    }

    fn launch(
        &mut self,
        channel: u32,
        number: u32,
        start: &StartMessage<'_>,
        fds: &[OwnedFd],
    ) -> Result<u32, (LaunchStep, i32)> {
        let refused = |errno: Errno| (LaunchStep::Process, errno.raw_os_error());
        if self.programs.len() >= MAX_PROGRAMS {
            return Err(refused(Errno::AGAIN));
        }
        let passed = usize::try_from(start.passed.count_ones()).unwrap_or(usize::MAX);
        if passed != fds.len() || self.numbers.contains_key(&(channel, number)) {
            return Err(refused(Errno::INVAL));
        }
        let mut passed = fds.iter();
        let places: Vec<BorrowedFd<'_>> = (0..start.places)
            .map(|place| {
                let rides = start.passed & (1 << place) != 0;
                let fd = if rides { passed.next() } else { None };
                fd.map_or(self.null.as_fd(), AsFd::as_fd)
            })
            .collect();
        let launch = Launch {
            program: start.program,
            arguments: &start.arguments,
            environment: &start.environment,
            tells_pid: start.tells_pid,
            dir: start.dir,
            fds: &places,
            identity: start.identity.as_ref(),
            max_files: (start.max_files > 0).then(|| start.max_files.into()),
        };
        self.launcher.launch(&launch).map_err(|(step, error)| {
            let errno = error.raw_os_error();
            (step, errno.unwrap_or(Errno::INVAL.raw_os_error()))
        })
    }

    fn end(&mut self, channel: u32, number: u32, grace_ms: u32) {
        // It may have ended by itself.
        let Some(pid) = self.numbers.get(&(channel, number)) else {
            return;
        };
        if grace_ms == 0 {
            end_group(*pid, Ending::Kill);
        } else if let Some(program) = self.programs.get_mut(pid) {
            end_group(*pid, Ending::Ask);
            let grace = Duration::from_millis(grace_ms.into());
            program.killed_at = Some(Instant::now() + grace);
        }
    }

    fn tell(&mut self, channel: u32, number: u32, news: News) {
        let found = self.channels.iter_mut().find(|one| one.id == channel);
        if let Some(channel) = found
            && channel.unsent.len() < MAX_UNSENT
        {
            channel.unsent.push_back(write_news(number, news));
            let id = channel.id;
            // One that is broken is found out when it is read.
            let _ = self.flush(id);
        }
    }

    fn flush(&mut self, channel: u32) -> io::Result<()> {
        let found = self.channels.iter_mut().find(|one| one.id == channel);
        let Some(channel) = found else {
            return Ok(());
        };
        while let Some(news) = channel.unsent.front() {
            match net::send_with_fds(&channel.socket, news, &[]) {
                Ok(()) => _ = channel.unsent.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        process::kill_all_children(LAST_ENDS);
    }
}
