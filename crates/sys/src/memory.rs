//! The allocator.

/// Gives memory that is free back to the system, now.
///
/// The allocator does so by and by, and keeps what was just freed for what comes next. After
/// loading a configuration nothing comes next: the fifty megabytes that Lua took are not needed
/// again until the next reload. Takes some milliseconds; not for a worker.
///
/// Only what mimalloc has allocated: in a program with another allocator it does nothing.
#[expect(unsafe_code, reason = "the allocator's only interface")]
pub fn give_back_free() {
    // SAFETY: may be called at any time from any thread; it takes and returns nothing.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_may_be_called_at_any_time_from_any_thread() {
        let threads = [1, 2, 3].map(|n| {
            std::thread::spawn(move || {
                let kept = vec![n; 100_000];
                super::give_back_free();
                kept.iter().sum::<usize>()
            })
        });
        let sums = threads.map(|thread| thread.join().expect("no panic"));
        assert_eq!(sums, [100_000, 200_000, 300_000]);
    }
}
