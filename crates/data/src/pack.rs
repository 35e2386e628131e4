//! Short examples together in one row.

use std::collections::BTreeMap;

use crate::error::DataError;

/// Puts examples together so that few rows of `capacity` tokens hold them all; each row is a list of examples.
///
/// Best fit, the longest first: every example goes where it leaves the least room (Johnson 1974; rows at most 11/9 of the
/// fewest possible, and one). The result is a function of the arguments alone. Rows stand in the order of their first
/// example.
///
/// # Errors
///
/// [`DataError::BadOption`] for an example that is longer than a row.
pub fn pack(lengths: &[usize], capacity: usize) -> Result<Vec<Vec<usize>>, DataError> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest > capacity {
        return Err(DataError::BadOption {
            option: "the length of a packed row",
            value: capacity.to_string(),
            expected: "at least the tokens of the longest example",
        });
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Rows by the room that they have left.
    let mut room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        let fitting = room.range_mut(length..).next();
        let (row, left) = match fitting {
            Some((&left, fitting)) => {
                let row = fitting.pop();
                if fitting.is_empty() {
                    room.remove(&left);
                }
                (row, left)
            }
            None => (None, capacity),
        };
        let row = row.unwrap_or_else(|| {
            rows.push(Vec::new());
            rows.len() - 1
        });
        rows[row].push(index);
        room.entry(left - length).or_default().push(row);
    }
    for row in &mut rows {
        row.sort_unstable();
    }
    rows.sort_unstable();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lengths;

    #[test]
    fn every_example_is_in_one_row() {
        for (count, longest, capacity) in [(1, 5, 5), (200, 30, 64), (500, 64, 64), (97, 3, 100)] {
            let lengths = lengths(count, longest);
            let rows = pack(&lengths, capacity).unwrap();
            let mut all: Vec<usize> = rows.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            let filled = |row: &Vec<usize>| row.iter().map(|&index| lengths[index]).sum::<usize>();
            assert!(rows.iter().all(|row| filled(row) <= capacity));
            let fewest = lengths.iter().sum::<usize>().div_ceil(capacity);
            assert!(
                rows.len() <= fewest * 11 / 9 + 1,
                "{} rows, {fewest} at least",
                rows.len()
            );
        }
        assert!(pack(&[], 5).unwrap().is_empty());
    }

    #[test]
    fn goes_where_it_leaves_the_least_room() {
        // 7 and 6 open rows of 10; 4 fits only the second, 3 fills the first.
        assert_eq!(pack(&[3, 6, 7, 4], 10).unwrap(), [vec![0, 2], vec![1, 3]]);
        assert!(pack(&[3, 11], 10).is_err());
    }
}
