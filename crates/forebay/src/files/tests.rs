//! Streams of files, the pool, and what a disk that stands still leaves alone.

use std::fs;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_sys::files::Facts;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::pool::THREADS;
use super::testing::ColdDisk;
use super::{Disk, FileStream, Files, Kernel, OpenFile, Pool};
use crate::exchange::{FileRange, Pulled, Reason, Stream};
use crate::listen::{Listener, accept_all};
use crate::steps::testing::Bench;
use crate::worker::{BUFFER_BYTES, LARGE_BUFFER_BYTES, Worker};

fn runtime() -> LocalRuntime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(THREADS);
    builder.build_local(LocalOptions::default()).unwrap()
}

fn worker(disk: Arc<dyn Disk>) -> Rc<Worker> {
    let bench = Bench::new(r#"site { "*", respond(200) }"#);
    let mut worker = bench.another_worker();
    Rc::get_mut(&mut worker).unwrap().files = Files::new(disk);
    worker
}

/// Bytes of which no two windows are equal.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap())
        .collect()
}

fn open(path: &Path) -> Rc<OpenFile> {
    let file = fs::File::open(path).unwrap();
    let facts = Facts::of(&file).unwrap();
    OpenFile::new(file, facts)
}

fn stream(worker: &Rc<Worker>, file: &Rc<OpenFile>, start: u64, end: u64) -> FileStream {
    FileStream::new(
        worker,
        FileRange {
            file: file.clone(),
            start,
            end,
        },
    )
}

async fn pull(stream: &mut FileStream) -> Pulled {
    poll_fn(|cx| stream.poll_pull(cx)).await
}

async fn data(stream: &mut FileStream) -> Bytes {
    match pull(stream).await {
        Pulled::Data(bytes) => bytes,
        Pulled::End(_) => panic!("the end"),
        Pulled::Abort(fault) => panic!("{fault}"),
    }
}

/// All of it, or why not.
async fn all(stream: &mut FileStream) -> Result<Vec<u8>, Reason> {
    let mut all = Vec::new();
    loop {
        match pull(stream).await {
            Pulled::Data(bytes) => all.extend_from_slice(&bytes),
            Pulled::End(_) => return Ok(all),
            Pulled::Abort(fault) => return Err(fault.reason),
        }
    }
}

#[test]
fn a_part_is_streamed_whole_from_memory_and_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let bytes = pattern(6_000_003);
    fs::write(&path, &bytes).unwrap();
    let file = open(&path);
    let disks: [Arc<dyn Disk>; 2] = [Arc::new(Kernel), Arc::new(ColdDisk::default())];
    for disk in disks {
        let worker = worker(disk);
        runtime().block_on(async {
            for (start, end) in [
                (0, 6_000_003),
                (0, 1),
                (5, 5),
                (65_535, 65_537),
                (99, 5_999_999),
            ] {
                let mut stream = stream(&worker, &file, start as u64, end as u64);
                assert_eq!(stream.len_bytes(), Some((end - start) as u64));
                assert!(
                    all(&mut stream).await.unwrap() == bytes[start..end],
                    "{start}..{end}"
                );
            }
        });
    }
}

#[test]
fn windows_use_one_buffer_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    fs::write(&path, pattern(16 << 20)).unwrap();
    let worker = worker(Arc::new(Kernel));
    runtime().block_on(async {
        let mut stream = stream(&worker, &open(&path), 0, 16 << 20);
        let mut places = Vec::new();
        loop {
            match pull(&mut stream).await {
                Pulled::Data(bytes) => places.push(bytes.as_ptr()),
                Pulled::End(_) => break,
                Pulled::Abort(fault) => panic!("{fault}"),
            }
        }
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        drop(stream);
        // And it is there for the next one.
        assert_eq!(worker.large_buffer().as_ptr(), places[0]);
    });
}

#[test]
fn a_window_that_is_still_read_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let bytes = pattern(1 << 20);
    fs::write(&path, &bytes).unwrap();
    let worker = worker(Arc::new(Kernel));
    runtime().block_on(async {
        let mut stream = stream(&worker, &open(&path), 0, 1 << 20);
        let mut held = Vec::new();
        while let Pulled::Data(bytes) = pull(&mut stream).await {
            held.push(bytes);
        }
        assert!(held.concat() == bytes);
    });
}

#[test]
fn a_slow_client_gets_small_windows_and_a_fast_one_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    fs::write(&path, pattern(8 << 20)).unwrap();
    let worker = worker(Arc::new(Kernel));
    runtime().block_on(async {
        let mut stream = stream(&worker, &open(&path), 0, 8 << 20);
        assert_eq!(data(&mut stream).await.len(), 64 << 10);
        let fast = loop {
            // However slow this machine is, this client is not.
            stream.pretend_pulled(worker.now_ms());
            let len = data(&mut stream).await.len();
            if len != 64 << 10 {
                break len;
            }
        };
        assert_eq!(fast, LARGE_BUFFER_BYTES);
        stream.pretend_pulled(worker.now_ms().saturating_sub(1000));
        assert_eq!(data(&mut stream).await.len(), BUFFER_BYTES);
        // It comes back to what it was step by step.
        stream.pretend_pulled(worker.now_ms());
        assert_eq!(data(&mut stream).await.len(), BUFFER_BYTES);
        for _ in 0..3 {
            stream.pretend_pulled(worker.now_ms());
            data(&mut stream).await;
        }
        stream.pretend_pulled(worker.now_ms());
        assert_eq!(data(&mut stream).await.len(), 64 << 10);
    });
}

#[test]
fn a_file_that_changes_in_place_is_broken_off() {
    type Change = fn(&fs::File);
    let changes: [(&str, Change); 4] = [
        ("shorter", |file| file.set_len(70_000).unwrap()),
        ("empty", |file| file.set_len(0).unwrap()),
        ("longer", |file| file.set_len(10 << 20).unwrap()),
        ("other bytes", |file| {
            file.write_all_at(b"x", 0).unwrap();
            // The kernel's clock may stand still for a tick.
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
    ];
    let disks: [Arc<dyn Disk>; 2] = [Arc::new(Kernel), Arc::new(ColdDisk::default())];
    for disk in disks {
        let worker = worker(disk);
        for (what, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("big");
            fs::write(&path, pattern(1 << 20)).unwrap();
            runtime().block_on(async {
                let mut stream = stream(&worker, &open(&path), 0, 1 << 20);
                data(&mut stream).await;
                change(&fs::File::options().write(true).open(&path).unwrap());
                assert_eq!(all(&mut stream).await, Err(Reason::FileChanged), "{what}");
            });
        }
    }
}

#[test]
fn a_file_replaced_by_rename_or_removed_is_sent_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let bytes = pattern(1 << 20);
    fs::write(&path, &bytes).unwrap();
    let worker = worker(Arc::new(Kernel));
    runtime().block_on(async {
        let mut stream = stream(&worker, &open(&path), 0, 1 << 20);
        let mut got = data(&mut stream).await.to_vec();
        fs::write(dir.path().join("new"), "new").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        got.extend(all(&mut stream).await.unwrap());
        assert!(got == bytes);
    });
}

#[test]
fn a_disk_that_fails_is_the_operators_matter() {
    const EIO: i32 = 5;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    fs::write(&path, pattern(1 << 20)).unwrap();
    let disk = ColdDisk::with_names();
    let worker = worker(disk.clone());
    runtime().block_on(async {
        let mut stream = stream(&worker, &open(&path), 0, 1 << 20);
        data(&mut stream).await;
        disk.fail(EIO);
        assert_eq!(all(&mut stream).await, Err(Reason::FileFailed));
    });
}

#[test]
fn a_file_system_that_hangs_keeps_half_of_the_threads_at_most() {
    let pool: Rc<Pool> = Rc::default();
    runtime().block_on(async {
        let (release, gate) = channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new(gate));
        let mut hanging = Vec::new();
        for _ in 0..2 * THREADS {
            let gate = gate.clone();
            // Ends when the sender is dropped.
            let work = move || gate.lock().recv().is_ok();
            hanging.push(tokio::task::spawn_local(pool.run(1, work)));
        }
        tokio::task::yield_now().await;
        for number in 0..100 {
            assert_eq!(pool.run(2, move || number).await.unwrap(), number);
        }
        drop(release);
        for job in hanging {
            job.await.unwrap().unwrap();
        }
        pool.settle().await;
    });
}

#[test]
fn more_than_may_wait_are_refused_and_who_leaves_makes_room() {
    let pool: Rc<Pool> = Rc::default();
    runtime().block_on(async {
        let (release, gate) = channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new(gate));
        let mut waiting = Vec::new();
        let refused = loop {
            let gate = gate.clone();
            let work = move || gate.lock().recv().is_ok();
            let job = pool.run_or_refuse(1, work);
            let mut job = Box::pin(job);
            match poll_fn(|cx| std::task::Poll::Ready(job.as_mut().poll(cx))).await {
                std::task::Poll::Ready(result) => break result,
                std::task::Poll::Pending => waiting.push(job),
            }
            assert!(waiting.len() < 10_000, "nothing is refused");
        };
        assert_eq!(refused.unwrap_err().reason, Reason::Overloaded);
        // Those that have begun go on though nobody waits for them, and then give their threads
        // back.
        drop(waiting);
        drop(release);
        for _ in 0..2 * THREADS {
            pool.run_or_refuse(1, || ()).await.unwrap();
        }
        pool.settle().await;
    });
}

#[test]
fn work_that_panics_is_a_fault_and_not_the_end() {
    let pool: Rc<Pool> = Rc::default();
    runtime().block_on(async {
        for _ in 0..2 * THREADS {
            let fault = pool.run(1, || panic!("on purpose")).await.unwrap_err();
            assert_eq!(fault.reason, Reason::Internal);
        }
        pool.settle().await;
    });
}

/// A real worker, a real socket, and a disk that stands still.
#[test]
fn a_disk_that_stands_still_stops_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = pattern(2_000_000);
    fs::write(dir.path().join("big"), &bytes).unwrap();
    fs::write(dir.path().join("small"), "small").unwrap();
    let bench = Bench::new(&format!(
        r#"site {{ "*", route "/now" {{ respond(200, "now") }}, files "{}" }}"#,
        dir.path().display()
    ));
    let disk = Arc::new(ColdDisk::default());
    disk.stop(true);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        }
    };
    std::thread::scope(|scope| {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let served = bench.served().clone();
        let process = bench.worker.process.clone();
        let (snapshot, of_worker) = (bench.built.snapshot.clone(), disk.clone());
        scope.spawn(move || {
            runtime().block_on(async move {
                process
                    .max_connections
                    .store(100, std::sync::atomic::Ordering::Relaxed);
                let counters = Arc::default();
                let mut worker = Worker::new(0, snapshot, counters, process);
                Rc::get_mut(&mut worker).unwrap().files = Files::new(of_worker);
                socket.set_nonblocking(true).unwrap();
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                let listener = Listener::new(1, served, &worker);
                tokio::task::spawn_local(crate::wheel::driver(worker.wheel.clone()).unwrap());
                tokio::task::spawn_local(accept_all(worker, listener, socket));
                let _ = ended.await;
            });
        });
        let stuck = [get("/big"), get("/small"), get("/none"), get("/big")];
        let start = Instant::now();
        while disk.waiting() < stuck.len() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "they do not get to the disk"
            );
            std::thread::yield_now();
        }
        // All of them wait for the disk now; the others do not notice.
        for _ in 0..100 {
            assert!(get("/now")().ends_with(b"\r\n\r\nnow"));
        }
        assert_eq!(disk.waiting(), stuck.len());
        disk.stop(false);
        let [big, small, none, again] = stuck.map(|mut read| read());
        for big in [big, again] {
            assert!(big.starts_with(b"HTTP/1.1 200 ") && big.ends_with(&bytes));
        }
        assert!(small.ends_with(b"\r\n\r\nsmall"));
        assert!(none.starts_with(b"HTTP/1.1 404 "));
        let _ = end.send(());
    });
}
