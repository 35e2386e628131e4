//! The pretraining text: short documents that say the same facts more than once.
//!
//! A language model that reads a deal, and then reads it again in other words, or as questions and answers, lowers its
//! loss by looking up who, what and how many. That is what the adapter later builds on. Summaries name two or three parts
//! in any order; the record of the task, all five in one order after `Record:`, occurs in none of the documents.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::grammar::{Deal, TELLINGS, aside, pick};

/// Ways to ask for one part of a deal, with the answer.
const QUESTIONS: [&str; 12] = [
    "From whom? {seller}.",
    "Which seller? {seller}.",
    "The seller was {seller}.",
    "Which ship? {ship}.",
    "The ship was {ship}.",
    "Which item? {item}.",
    "The item was {item}.",
    "Which colour? {colour}.",
    "The colour was {colour}.",
    "How many? {figure}.",
    "Which count? {figure}.",
    "The count was {figure}.",
];

/// The parts of a deal by name, for a summary that lists some of them in any order.
const PARTS: [&str; 5] = [
    "seller: {seller}",
    "ship: {ship}",
    "item: {item}",
    "colour: {colour}",
    "count: {figure}",
];

/// One document, without the end-of-sequence token.
pub fn document(rng: &mut impl Rng) -> String {
    match rng.random_range(0..20) {
        0 => day_log(rng),
        1..=2 => two_deals(rng),
        3..=7 => retold(rng),
        _ => examined(rng),
    }
}

/// A deal, told three or four times in different words.
fn retold(rng: &mut impl Rng) -> String {
    let deal = Deal::draw(rng);
    let times = rng.random_range(3..=4);
    let mut sentences: Vec<String> = tellings(times, rng)
        .map(|telling| deal.tell(telling))
        .collect();
    if rng.random_ratio(1, 6) {
        sentences.insert(rng.random_range(0..times), aside(rng));
    }
    sentences.join(" ")
}

/// A deal, then questions about it in any order, with a summary before, among or after them.
fn examined(rng: &mut impl Rng) -> String {
    let deal = Deal::draw(rng);
    let mut sentences: Vec<String> = tellings(1, rng).map(|telling| deal.tell(telling)).collect();
    if rng.random_ratio(1, 6) {
        sentences.insert(rng.random_range(0..=1), aside(rng));
    }
    let mut questions = QUESTIONS;
    questions.shuffle(rng);
    let asked = rng.random_range(3..=5);
    sentences.extend(
        questions[..asked]
            .iter()
            .map(|question| deal.fill(question)),
    );
    let mut parts = PARTS;
    parts.shuffle(rng);
    let listed = parts[..rng.random_range(2..=3)].join(", ");
    let at = sentences.len() - rng.random_range(0..=asked);
    sentences.insert(at, deal.fill(&format!("In short, {listed}.")));
    sentences.join(" ")
}

/// Two deals, then one of them again.
fn two_deals(rng: &mut impl Rng) -> String {
    let deals = [Deal::draw(rng), Deal::draw(rng)];
    let again = pick(&deals, rng);
    let told = [deals[0], deals[1], again]
        .into_iter()
        .zip(tellings(3, rng));
    told.map(|(deal, telling)| deal.tell(telling))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A list of asides, for the colons and semicolons that the sentences do not have.
fn day_log(rng: &mut impl Rng) -> String {
    let mut log = String::from("Record:");
    for entry in 0..rng.random_range(2..=3) {
        let aside = aside(rng);
        let (first, rest) = aside.trim_end_matches('.').split_at(1);
        log.push_str(if entry == 0 { " " } else { "; " });
        log.push_str(&first.to_lowercase());
        log.push_str(rest);
    }
    log + "."
}

/// `count` different tellings.
fn tellings(count: usize, rng: &mut impl Rng) -> impl Iterator<Item = &'static str> {
    let mut all = TELLINGS;
    all.shuffle(rng);
    all.into_iter().take(count)
}
