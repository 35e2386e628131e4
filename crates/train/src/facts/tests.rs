use std::fs;

use super::*;

fn metrics(loss: f64) -> BTreeMap<String, Option<f64>> {
    BTreeMap::from([
        ("loss".to_string(), Some(loss)),
        ("gradient_norm".to_string(), None),
    ])
}

/// The messages of a TFRecord file, both checksums of each compared.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes")) as usize;
        assert_eq!(word(8), crc32c::masked(&rest[..8]), "of the length");
        let message = &rest[12..12 + length];
        assert_eq!(word(12 + length), crc32c::masked(message), "of the message");
        records.push(message.to_vec());
        rest = &rest[16 + length..];
    }
    records
}

/// A field of a message: its number, and its bytes or its number as bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in 0.. {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                let value = varint(&mut message);
                found.push((key >> 3, value.to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, message[..length].to_vec()));
        message = &message[length..];
    }
    found
}

#[test]
fn events_are_read_back_as_tensorboard_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = FactFiles::open(dir.path(), 0, 300).expect("opened");
    files.begin();
    files.trained(1, metrics(2.5));
    files.validated(300, metrics(1.25));
    let folder = dir.path().join(EVENTS_FOLDER);
    let mut names = fs::read_dir(&folder).expect("a folder");
    let path = names.next().expect("a file").expect("an entry").path();
    let name = path
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let records = records(&fs::read(&path).expect("read"));
    assert_eq!(records.len(), 3);
    let version = fields(&records[0]);
    assert!(
        version.contains(&(3, b"brain.Event:2".to_vec())),
        "{version:?}"
    );
    for (record, step, tag, value) in [
        (&records[1], 1u64, "train/loss", 2.5f32),
        (&records[2], 300, "valid/loss", 1.25),
    ] {
        let event = fields(record);
        assert_eq!(event[1], (2, step.to_le_bytes().to_vec()));
        let (5, summary) = &event[2] else {
            panic!("{event:?}")
        };
        let values = fields(summary);
        // What is no number is no scalar.
        assert_eq!(values.len(), 1);
        let scalar = fields(&values[0].1);
        assert_eq!(scalar[0], (1, tag.as_bytes().to_vec()));
        assert_eq!(scalar[1], (2, value.to_le_bytes().to_vec()));
    }
}

#[test]
fn a_run_that_goes_on_forgets_what_is_done_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut files = FactFiles::open(dir.path(), 0, 8).expect("opened");
    files.begin();
    for step in 1..=6 {
        files.trained(step, metrics(step as f64));
    }
    drop(files);
    let path = dir.path().join(FACTS_FILE);
    // Killed in the middle of a line.
    let mut text = fs::read_to_string(&path).expect("read");
    text.push_str("{\"kind\":\"train\",\"st");
    fs::write(&path, text).expect("written");

    let mut files = FactFiles::open(dir.path(), 4, 8).expect("opened again");
    files.begin();
    files.trained(5, metrics(50.0));
    files.validated(5, metrics(49.0));
    drop(files);
    let facts = read_facts(&path).expect("facts");
    let steps: Vec<(usize, f64)> = facts
        .iter()
        .map(|fact| (fact.step, fact.metrics["loss"].expect("a number")))
        .collect();
    let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0), (5, 49.0)];
    assert_eq!(steps, expected);
    assert_eq!(facts[5].kind, FactKind::Valid);
    assert_eq!(facts[5].metrics["gradient_norm"], None);
    assert!(facts[4].seconds_left.is_some());
    // The second start tells TensorBoard from which step on the first is void.
    let folder = dir.path().join(EVENTS_FOLDER);
    let files: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
    assert_eq!(files.len(), 2);
    let started = files.iter().any(|file| {
        let records = records(&fs::read(file.path()).expect("read"));
        let start = fields(&records[1]);
        start[1] == (2, 5u64.to_le_bytes().to_vec()) && start[2] == (7, vec![8, 1])
    });
    assert!(started);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    fs::write(&path, "").expect("written");
    let error = FactFiles::open(&path, 0, 1).err().expect("no folder");
    assert!(error.to_string().contains("file"), "{error}");
}
