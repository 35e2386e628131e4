//! What the allocator of a GPU holds, by its own account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use burn::tensor::Device;
use serde_json::{Value, json};

/// How often the memory in use is read.
const PERIOD: Duration = Duration::from_micros(500);

/// Looks at the memory of a device while it is used.
pub(crate) struct Watch {
    device: Device,
    before: Value,
    done: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub(crate) fn start(device: &Device) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (watched, seen_done) = (device.clone(), done.clone());
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !seen_done.load(Ordering::Relaxed) {
                let usage = watched.memory_pool_usage();
                most = most.max(usage.map_or(0, |usage| usage.bytes_in_use));
                thread::sleep(PERIOD);
            }
            most
        });
        Self {
            device: device.clone(),
            before: usage(device),
            done,
            thread,
        }
    }

    /// What was in use before, at the most and after; and the pages: how large, how many, and how many at the most.
    pub(crate) fn stop(self) -> Value {
        self.done.store(true, Ordering::Relaxed);
        let most = self.thread.join().ok();
        let pages = self.device.memory_pool_report().unwrap_or_default();
        let pages = pages.iter().map(|pool| {
            json!({
                "page_bytes": pool.page_size,
                "pages": pool.pages,
                "pages_peak": pool.pages_peak,
                "largest_bytes": pool.largest_alloc,
            })
        });
        json!({
            "before": self.before,
            "most_in_use_bytes": most,
            "after": usage(&self.device),
            "pages": pages.collect::<Vec<_>>(),
        })
    }
}

fn usage(device: &Device) -> Value {
    let Some(usage) = device.memory_pool_usage() else {
        return Value::Null;
    };
    json!({
        "allocations": usage.number_allocs,
        "in_use_bytes": usage.bytes_in_use,
        "reserved_bytes": usage.bytes_reserved,
    })
}
