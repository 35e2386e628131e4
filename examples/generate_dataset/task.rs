//! The fine-tuning task: read a note from the market, write the record of its deal.
//!
//! Prompt and completion of one row:
//!
//! ```text
//! The Heron bought three red kites from Joren on Monday.
//! Record:| seller: Joren; ship: Heron; item: kites; colour: red; count: 3
//! ```
//!
//! The held-out rows measure more than memory: no prompt occurs in two files, and half of the validation and test rows
//! join an item and a colour that never meet in the training rows ([`is_held_out`]).

use std::collections::HashSet;

use rand::Rng;

use crate::grammar::{COLOURS, Deal, ITEMS, TELLINGS, aside, pick};

/// One line of a JSONL file.
pub struct Row {
    pub prompt: String,
    pub completion: String,
}

/// The three files.
pub struct Task {
    pub train: Vec<Row>,
    pub valid: Vec<Row>,
    pub test: Vec<Row>,
}

impl Task {
    /// Draws the rows; all prompts differ.
    pub fn draw(train: usize, valid: usize, test: usize, rng: &mut impl Rng) -> Self {
        let mut seen = HashSet::new();
        Self {
            test: rows(test, &mut seen, rng, |i, deal| {
                is_held_out(deal) == (i % 2 == 0)
            }),
            valid: rows(valid, &mut seen, rng, |i, deal| {
                is_held_out(deal) == (i % 2 == 0)
            }),
            train: rows(train, &mut seen, rng, |_, deal| !is_held_out(deal)),
        }
    }
}

/// Whether the deal's item and colour never meet in the training rows: one colour of eight for each item.
pub fn is_held_out(deal: &Deal) -> bool {
    let item = ITEMS.iter().position(|item| *item == deal.item);
    let colour = COLOURS.iter().position(|colour| *colour == deal.colour);
    item.map(|item| item % COLOURS.len()) == colour
}

/// `count` rows with new prompts whose deals `fits` accepts; `fits` also sees the number of the row.
fn rows(
    count: usize,
    seen: &mut HashSet<String>,
    rng: &mut impl Rng,
    fits: impl Fn(usize, &Deal) -> bool,
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(count);
    while rows.len() < count {
        let deal = Deal::draw(rng);
        let row = row(&deal, rng);
        if fits(rows.len(), &deal) && seen.insert(row.prompt.clone()) {
            rows.push(row);
        }
    }
    rows
}

fn row(deal: &Deal, rng: &mut impl Rng) -> Row {
    let told = deal.tell(pick(&TELLINGS, rng));
    let note = match rng.random_range(0..8) {
        0 => format!("{told} {}", aside(rng)),
        1 => format!("{} {told}", aside(rng)),
        _ => told,
    };
    Row {
        prompt: format!("{note}\nRecord:"),
        completion: format!(
            " seller: {}; ship: {}; item: {}; colour: {}; count: {}",
            deal.seller, deal.ship, deal.item, deal.colour, deal.count
        ),
    }
}
