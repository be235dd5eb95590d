//! What the service manager is told (systemd's `sd_notify`): that the server is ready, reloads or
//! stops, a line on what it does, and, where there is a watchdog, that it is alive.
//!
//! A sign of life is sent twice in the watchdog's time, and only after every worker has answered a
//! message. The control plane sends it, from the thread that also reloads and answers commands. So
//! whichever of them hangs, the watchdog fires. A reload that takes long is no hang: it loads on a
//! thread of its own.
//!
//! ```text
//!        start         told to stop
//!   Off ───────▶ Asking ─────────▶ Stopping
//!                  │  ▲               │  ▲   workers that drain read no mail; the time for it is
//!                  └──┘ every worker  └──┘   limited, so signs of life need no answers
//!                       has answered
//! ```

use std::sync::Arc;
use std::time::Duration;

use forebay_sys::process::{NotifyState, ServiceManager};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::build::Built;
use crate::worker::{Mail, Mailbox};

/// At the start a worker has to answer within this time.
const START: Duration = Duration::from_secs(10);

/// At most so many addresses stand in the status.
const ADDRESSES: usize = 4;

/// The service manager, if there is one.
#[derive(Default)]
pub struct Service {
    manager: Option<Arc<ServiceManager>>,
    /// Sends the signs of life.
    alive: Option<JoinHandle<()>>,
}

impl Service {
    /// The one that the environment names. Nothing is told yet.
    pub fn of_environment() -> Service {
        let manager = ServiceManager::of_environment().unwrap_or_else(|error| {
            tracing::warn!(%error, "NOTIFY_SOCKET cannot be used");
            None
        });
        Service {
            manager: manager.map(Arc::new),
            alive: None,
        }
    }

    /// Tells that requests are served, once every worker has answered; signs of life begin.
    pub async fn ready(&mut self, built: &Built, workers: &[Mailbox]) -> Result<(), String> {
        let Some(manager) = self.manager.clone() else {
            return Ok(());
        };
        let answered = tokio::time::timeout(START, answers(workers)).await;
        if answered != Ok(true) {
            return Err("a worker does not answer".to_owned());
        }
        self.tell(&[
            NotifyState::Ready,
            NotifyState::Status(&status(built, None)),
        ]);
        if let Some(time) = manager.watchdog() {
            let signs = signs_of_life(manager, time, workers.to_vec());
            self.alive = Some(tokio::spawn(signs));
        }
        Ok(())
    }

    /// Tells that the configuration is being loaded.
    pub fn reloading(&self) {
        // The manager compares it with when it asked, if it did.
        let now = i128::from(forebay_sys::clock::precise_ns() / 1000);
        self.tell(&[
            NotifyState::Reloading,
            NotifyState::MonotonicUsec(now),
            NotifyState::Status("Loading the configuration"),
        ]);
    }

    /// Tells what came of it. A server whose new configuration has mistakes is ready with the old.
    pub fn reloaded(&self, built: &Built, failed: bool) {
        let remark = failed.then_some("; the last reload was refused");
        let status = status(built, remark);
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Tells that it ends, within this time.
    pub fn stopping(&mut self, time: Duration) {
        let Some(manager) = self.manager.clone() else {
            return;
        };
        self.end();
        let limit = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(limit),
            NotifyState::Status("Finishing what is under way"),
        ]);
        if let Some(time) = manager.watchdog() {
            // Workers that drain read no mail.
            let signs = signs_of_life(manager, time, Vec::new());
            self.alive = Some(tokio::spawn(signs));
        }
    }

    fn end(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.abort();
        }
    }

    fn tell(&self, news: &[NotifyState<'_>]) {
        if let Some(manager) = &self.manager {
            tell(manager, news);
        }
    }
}

fn tell(manager: &ServiceManager, news: &[NotifyState<'_>]) {
    if let Err(error) = manager.tell(news) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Sends a sign of life twice in the watchdog's time, for ever; each after all these have answered.
async fn signs_of_life(manager: Arc<ServiceManager>, time: Duration, workers: Vec<Mailbox>) {
    let half = time / 2;
    loop {
        tell_alive(&manager, &workers, half).await;
        tokio::time::sleep(half).await;
    }
}

/// One sign of life. A worker that has ended or hangs is waited for, for ever: only the watchdog
/// ends that. One that comes back is answered for at once, not at the next turn.
async fn tell_alive(manager: &ServiceManager, workers: &[Mailbox], patience: Duration) {
    let mut answered = std::pin::pin!(answers(workers));
    let all = match tokio::time::timeout(patience, &mut answered).await {
        Ok(all) => all,
        Err(_) => {
            tracing::error!("a worker does not answer; the watchdog is told nothing until it does");
            answered.await
        }
    };
    if all {
        tell(manager, &[NotifyState::Watchdog]);
    } else {
        tracing::error!("a worker has ended; the watchdog is told nothing any more");
        std::future::pending::<()>().await;
    }
}

/// Whether all of them have answered a message. `false`: one has ended.
async fn answers(workers: &[Mailbox]) -> bool {
    let mut waiting = Vec::with_capacity(workers.len());
    for mailbox in workers {
        let (done, answered) = oneshot::channel();
        if mailbox.send(Mail::Ping { done }).await.is_err() {
            return false;
        }
        waiting.push(answered);
    }
    for answered in waiting {
        if answered.await.is_err() {
            return false;
        }
    }
    true
}

/// What `systemctl status` shows: `Serves 2 sites on :80 :443, generation 3`.
fn status(built: &Built, remark: Option<&str>) -> String {
    let sites = built.snapshot.sites.len();
    let addresses: Vec<String> = built.binds.iter().map(|b| b.address.to_string()).collect();
    let generation = built.snapshot.generation.number;
    line(sites, &addresses, generation, remark)
}

fn line(sites: usize, addresses: &[String], generation: u64, remark: Option<&str>) -> String {
    let (shown, more) = addresses.split_at(addresses.len().min(ADDRESSES));
    let more = match more.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "Serves {sites} {} on {}{more}, generation {generation}{}",
        if sites == 1 { "site" } else { "sites" },
        shown.join(" "),
        remark.unwrap_or_default()
    );
    // A message has a line for each thing, and the path of a socket may hold anything.
    text.replace(|c: char| c.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(test)
    }

    /// A worker that answers so many messages and then hangs.
    fn worker(answers: usize) -> Mailbox {
        let (mailbox, mut mail) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..answers {
                if let Some(Mail::Ping { done }) = mail.recv().await {
                    let _ = done.send(());
                }
            }
            std::future::pending::<()>().await;
            drop(mail);
        });
        mailbox
    }

    async fn in_time(workers: &[Mailbox]) -> Option<bool> {
        let patience = Duration::from_millis(50);
        tokio::time::timeout(patience, answers(workers)).await.ok()
    }

    #[test]
    fn one_worker_that_hangs_is_enough() {
        run(async {
            let workers = [worker(3), worker(2), worker(3)];
            assert_eq!(in_time(&workers).await, Some(true));
            assert_eq!(in_time(&workers).await, Some(true));
            assert_eq!(in_time(&workers).await, None, "the second hangs");
            // Its mailbox is full now: that is waited for no less.
            assert_eq!(in_time(&workers[1..2]).await, None);
        });
    }

    #[test]
    fn a_worker_that_has_ended_never_answers() {
        run(async {
            let (gone, mail) = mpsc::channel(1);
            drop(mail);
            assert_eq!(in_time(&[worker(1), gone]).await, Some(false));
            // Nor one that ends with the message unread.
            let (ends, mut mail) = mpsc::channel(1);
            tokio::spawn(async move { drop(mail.recv().await) });
            assert_eq!(in_time(&[ends]).await, Some(false));
        });
    }

    #[test]
    fn the_status_is_one_short_line() {
        let addresses = |count: usize| (1..=count).map(|n| format!(":{n}")).collect::<Vec<_>>();
        for (got, expected) in [
            (
                line(1, &addresses(1), 1, None),
                "Serves 1 site on :1, generation 1",
            ),
            (
                line(2, &addresses(6), 7, Some("; refused")),
                "Serves 2 sites on :1 :2 :3 :4 and 2 more, generation 7; refused",
            ),
            (
                line(1, &["unix:/a\nREADY=0".to_owned()], 1, None),
                "Serves 1 site on unix:/a?READY=0, generation 1",
            ),
        ] {
            assert_eq!(got, expected);
        }
    }
}
