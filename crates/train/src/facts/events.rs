//! Event files of TensorBoard: TFRecords of `tensorflow.Event` messages, of which scalars need five fields.
//!
//! A record is the length of the message (u64, little endian), its masked CRC-32C, the message, and that one's.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::crc32c::masked;

/// A file to which events are appended.
pub(super) struct EventFile {
    file: File,
}

/// Numbers of fields in `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto`.
mod field {
    pub(super) const WALL_TIME: u64 = 1;
    pub(super) const STEP: u64 = 2;
    pub(super) const FILE_VERSION: u64 = 3;
    pub(super) const SUMMARY: u64 = 5;
    pub(super) const SESSION_LOG: u64 = 7;
    /// Of a summary, and of a session log.
    pub(super) const VALUE: u64 = 1;
    pub(super) const STATUS: u64 = 1;
    /// Of a value.
    pub(super) const TAG: u64 = 1;
    pub(super) const SIMPLE_VALUE: u64 = 2;
}

/// How the bytes of a field are to be read.
mod wire {
    pub(super) const VARINT: u64 = 0;
    pub(super) const FIXED_64: u64 = 1;
    pub(super) const BYTES: u64 = 2;
    pub(super) const FIXED_32: u64 = 5;
}

/// `SessionLog.START`: readers forget what another file says of this step and later ones.
const START: u64 = 1;

impl EventFile {
    /// A file of its own for every start of a run, which TensorBoard joins.
    pub(super) fn create(folder: &Path, first_step: usize) -> io::Result<Self> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // A start within the same moment gets another name.
        let mut turn = 0;
        let file = loop {
            let id = std::process::id();
            let seconds = now.as_secs();
            let name = format!("events.out.tfevents.{seconds:010}.burn-lora.{id}.{turn}");
            match File::create_new(folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => turn += 1,
                file => break file?,
            }
        };
        let mut events = Self { file };
        let now = now.as_secs_f64();
        let mut version = event(now, 0);
        bytes(&mut version, field::FILE_VERSION, b"brain.Event:2");
        events.record(&version)?;
        if first_step > 0 {
            let mut log = Vec::new();
            number(&mut log, field::STATUS, START);
            let mut start = event(now, first_step + 1);
            bytes(&mut start, field::SESSION_LOG, &log);
            events.record(&start)?;
        }
        Ok(events)
    }

    /// One event with some scalars.
    pub(super) fn write(
        &mut self,
        wall_time: f64,
        step: usize,
        scalars: impl Iterator<Item = (String, f32)>,
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, scalar) in scalars {
            let mut value = Vec::new();
            bytes(&mut value, field::TAG, tag.as_bytes());
            key(&mut value, field::SIMPLE_VALUE, wire::FIXED_32);
            value.extend(scalar.to_le_bytes());
            bytes(&mut summary, field::VALUE, &value);
        }
        let mut event = event(wall_time, step);
        bytes(&mut event, field::SUMMARY, &summary);
        self.record(&event)
    }

    fn record(&mut self, message: &[u8]) -> io::Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(message);
        record.extend(masked(message).to_le_bytes());
        // In one piece, so that a reader never sees half of one.
        self.file.write_all(&record)
    }
}

fn event(wall_time: f64, step: usize) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, field::WALL_TIME, wire::FIXED_64);
    event.extend(wall_time.to_le_bytes());
    number(&mut event, field::STEP, step as u64);
    event
}

fn key(message: &mut Vec<u8>, field: u64, wire: u64) {
    varint(message, field << 3 | wire);
}

fn number(message: &mut Vec<u8>, field: u64, value: u64) {
    key(message, field, wire::VARINT);
    varint(message, value);
}

fn bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(message, field, wire::BYTES);
    varint(message, value.len() as u64);
    message.extend(value);
}

/// Seven bits a byte, the low ones first; all bytes but the last have their highest bit set.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
