//! The header of a safetensors file: eight bytes with its length, then JSON that places every tensor.
//!
//! It is read here and not by the safetensors crate, whose errors name neither the tensor nor its sizes and which takes
//! the last of several tensors of one name.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::ops::Range;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::fault::FileFault;

/// The bytes that hold the header's length.
const LENGTH: u64 = 8;
/// The longest header that the format allows.
const LIMIT: u64 = 100_000_000;
/// The header's entry that is no tensor.
const METADATA: &str = "__metadata__";

/// A tensor and its place in the file.
#[derive(Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// In bytes from the start of the file, which is longer.
    pub(crate) range: Range<u64>,
}

/// Why a header gives no tensors.
#[derive(Debug)]
pub(crate) enum HeaderError {
    Read(std::io::Error),
    Faults(Vec<FileFault>),
}

impl From<FileFault> for HeaderError {
    fn from(fault: FileFault) -> Self {
        Self::Faults(vec![fault])
    }
}

/// The tensors of a file of `length` bytes, in the order of their places. Nothing beyond the header is read, and nothing
/// larger than the file is allocated.
pub(crate) fn read(file: &mut impl Read, length: u64) -> Result<Vec<Located>, HeaderError> {
    let Some(left) = length.checked_sub(LENGTH) else {
        return Err(FileFault::TooShort { bytes: length }.into());
    };
    let mut bytes = [0; LENGTH as usize];
    file.read_exact(&mut bytes).map_err(HeaderError::Read)?;
    let header = u64::from_le_bytes(bytes);
    if header > left {
        return Err(FileFault::HeaderBeyondFile { header, left }.into());
    }
    if header > LIMIT {
        let limit = LIMIT;
        return Err(FileFault::HeaderTooLarge { header, limit }.into());
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(HeaderError::Read)?;
    let Entries(entries) =
        serde_json::from_slice(&text).map_err(|error| FileFault::NotJson(error.to_string()))?;
    let data = LENGTH + header..length;
    locate(entries, data).map_err(HeaderError::Faults)
}

/// The tensors where they lie in `data`, if all of them lie there side by side.
fn locate(entries: Vec<(String, Value)>, data: Range<u64>) -> Result<Vec<Located>, Vec<FileFault>> {
    let mut faults = Vec::new();
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if name == METADATA {
            continue;
        }
        if !names.insert(name.clone()) {
            faults.push(FileFault::Repeated { tensor: name });
            continue;
        }
        match located(name, &value, data.start) {
            Ok(tensor) => tensors.push(tensor),
            Err(fault) => faults.push(fault),
        }
    }
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    // Places are judged only when each is known: one faulty entry would make strays of its neighbours.
    if faults.is_empty() {
        faults = misplaced(&tensors, data);
    }
    match faults.is_empty() {
        true => Ok(tensors),
        false => Err(faults),
    }
}

#[derive(Deserialize)]
struct Info {
    dtype: Value,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

fn located(name: String, value: &Value, start: u64) -> Result<Located, FileFault> {
    let wrong = |problem: String| FileFault::Entry {
        tensor: name.clone(),
        problem,
    };
    let info = Info::deserialize(value).map_err(|error| wrong(error.to_string()))?;
    let dtype = Dtype::deserialize(&info.dtype)
        .map_err(|_| wrong(format!("{} is no dtype", info.dtype)))?;
    let (from, to) = info.data_offsets;
    let found = to
        .checked_sub(from)
        .ok_or_else(|| wrong(format!("it ends at {to}, before it begins at {from}")))?;
    let bits = info
        .shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |product, size| {
            product.checked_mul(*size as u64)
        })
        .ok_or_else(|| wrong(format!("the shape {:?} is larger than memory", info.shape)))?;
    let expected = bits.div_ceil(8);
    if found != expected || bits % 8 != 0 {
        return Err(FileFault::ByteCount {
            tensor: name,
            dtype: format!("{dtype:?}"),
            shape: info.shape,
            expected,
            found,
        });
    }
    let end = start.checked_add(to);
    let end = end.ok_or_else(|| wrong(format!("it ends at {to}, beyond any file")))?;
    Ok(Located {
        name,
        dtype,
        shape: info.shape,
        range: start + from..end,
    })
}

/// Tensors that leave the data, overlap, or leave bytes between them; `tensors` are in the order of their places.
fn misplaced(tensors: &[Located], data: Range<u64>) -> Vec<FileFault> {
    let mut outside = tensors.iter().filter(|t| t.range.end > data.end);
    if let Some(first) = outside.next() {
        let needed = tensors.iter().map(|t| t.range.end).max();
        return vec![FileFault::Truncated {
            tensors: 1 + outside.count(),
            first: first.name.clone(),
            needed: needed.unwrap_or(data.end),
            found: data.end,
        }];
    }
    let mut faults = Vec::new();
    let mut end = data.start;
    let mut last: Option<&Located> = None;
    for tensor in tensors {
        let start = tensor.range.start;
        match last {
            Some(other) if start < end => faults.push(FileFault::Overlap {
                tensor: tensor.name.clone(),
                other: other.name.clone(),
            }),
            _ if start > end => faults.push(FileFault::Stray {
                bytes: start - end,
                place: format!("before `{}`", tensor.name),
            }),
            _ => (),
        }
        if tensor.range.end >= end {
            end = tensor.range.end;
            last = Some(tensor);
        }
    }
    if end < data.end {
        faults.push(FileFault::Stray {
            bytes: data.end - end,
            place: "at the end".into(),
        });
    }
    faults
}

/// A JSON object with every entry, those of one name included.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn faults(bytes: &[u8]) -> Vec<FileFault> {
        match read(&mut &bytes[..], bytes.len() as u64) {
            Err(HeaderError::Faults(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    fn fault(header: &str, data: usize) -> String {
        let faults = faults(&file(header, data));
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].to_string()
    }

    const A: &str = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;

    #[test]
    fn places_are_counted_from_the_start_of_the_file() {
        let header = format!(r#"{{"__metadata__":{{"format":"pt"}},{A}}}"#);
        let bytes = file(&header, 8);
        let tensors = read(&mut &bytes[..], bytes.len() as u64).expect("valid");
        assert_eq!(tensors.len(), 1);
        let start = 8 + header.len() as u64;
        assert_eq!(tensors[0].range, start..start + 8);
        assert_eq!(tensors[0].shape, [2]);
    }

    #[test]
    fn a_lie_about_the_length_of_the_header_allocates_nothing() {
        assert_eq!(faults(&[1, 2, 3]), [FileFault::TooShort { bytes: 3 }]);
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let header = u64::MAX;
        assert_eq!(
            faults(&bytes),
            [FileFault::HeaderBeyondFile { header, left: 2 }]
        );
    }

    #[test]
    fn every_fault_names_the_tensor() {
        let cases = [
            (
                format!("{{{A},{A}}}"),
                8,
                "`a` is in the header more than once",
            ),
            (A.into(), 8, "not a JSON object"),
            (
                format!("{{{A}}}"),
                4,
                "1 tensors, `a` the first, reach beyond the end",
            ),
            (
                format!("{{{A}}}"),
                9,
                "1 bytes at the end belong to no tensor",
            ),
            (
                format!("{{{}}}", A.replace("[2]", "[3]")),
                8,
                "`a` is F32 [3], which takes 12 bytes; its place has 8",
            ),
            (
                format!("{{{}}}", A.replace("F32", "F33")),
                8,
                "\"F33\" is no dtype",
            ),
            (
                format!("{{{}}}", A.replace("[0,8]", "[8,0]")),
                8,
                "before it begins",
            ),
            (
                format!("{{{}}}", A.replace("[2]", "[4294967296,4294967296]")),
                8,
                "larger than memory",
            ),
            (
                format!("{{{}}}", A.replace("[2]", "[-2]")),
                8,
                "`a` in the header: ",
            ),
            (r#"{"a":7}"#.into(), 8, "`a` in the header: "),
            (
                format!(
                    "{{{}}}",
                    A.replace("[0,8]", "[18446744073709551607,18446744073709551615]")
                ),
                8,
                "beyond any file",
            ),
            (
                format!(
                    "{{{},{}}}",
                    A,
                    A.replace("\"a\"", "\"b\"").replace("[0,8]", "[4,12]")
                ),
                12,
                "`b` overlaps `a`",
            ),
            (
                format!(
                    "{{{},{}}}",
                    A,
                    A.replace("\"a\"", "\"b\"").replace("[0,8]", "[12,20]")
                ),
                20,
                "4 bytes before `b` belong to no tensor",
            ),
        ];
        for (header, data, expected) in cases {
            let found = fault(&header, data);
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn an_empty_file_of_weights_is_valid() {
        let bytes = file("{}", 0);
        assert!(
            read(&mut &bytes[..], bytes.len() as u64)
                .expect("valid")
                .is_empty()
        );
    }
}
