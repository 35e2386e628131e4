//! The invented world and its language: people at a harbour market sell goods to ships.
//!
//! One [`Deal`] is one fact: who sold how many of what, of which colour, to which ship, when and where. [`Deal::tell`] says it
//! by one of the [`TELLINGS`]: templates whose slots are filled from the deal. Nothing here comes from another text.

use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

pub const NAMES: [&str; 16] = [
    "Mira", "Tobin", "Ansel", "Brisa", "Corin", "Edda", "Faron", "Gilda", "Hesse", "Ilva", "Joren",
    "Lorin", "Oskar", "Runa", "Ulric", "Vesna",
];
pub const SHIPS: [&str; 10] = [
    "Heron", "Petrel", "Gannet", "Osprey", "Curlew", "Plover", "Tern", "Swift", "Raven", "Marlin",
];
pub const ITEMS: [&str; 20] = [
    "kites", "ropes", "lamps", "barrels", "bells", "nets", "cups", "drums", "boots", "chairs",
    "coats", "masks", "jars", "combs", "rugs", "pipes", "carts", "hats", "oars", "tiles",
];
pub const COLOURS: [&str; 8] = [
    "red", "blue", "green", "black", "white", "yellow", "brown", "grey",
];
pub const DAYS: [&str; 6] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
pub const PLACES: [&str; 8] = [
    "quay", "mill", "bridge", "gate", "tower", "square", "inn", "yard",
];
/// The words of the counts, from two on.
pub const NUMBERS: [&str; 11] = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];

/// Every way to tell a deal. `{n}` is the count in words, `{figure}` in figures; `{goods}` is `{n} {colour} {item}`.
pub const TELLINGS: [&str; 12] = [
    "{seller} sold {goods} to the {ship} at the {place}.",
    "{seller} sold the {ship} {goods} on {day}.",
    "The {ship} bought {goods} from {seller} on {day}.",
    "The {ship} bought {goods} at the {place} from {seller}.",
    "On {day} {seller} sent {goods} to the {ship}.",
    "On {day} the {ship} received {goods} from {seller}.",
    "At the {place} {seller} handed the {ship} {n} {item}, all {colour}.",
    "At the {place} the {ship} took {n} {item} from {seller}, all {colour}.",
    "The {item} that the {ship} got from {seller} were {colour}, {n} in all.",
    "The {n} {item} that {seller} brought to the {ship} on {day} were {colour}.",
    "The {colour} {item} of {seller} went to the {ship} on {day}, {n} of them.",
    "There were {goods} at the {place} for the {ship}, sent by {seller}.",
];

/// A sentence that says nothing about a deal.
const ASIDES: [&str; 8] = [
    "The {place} was full.",
    "It rained on {day}.",
    "The wind was cold at the {place}.",
    "The day was long.",
    "Nobody was at the {place}.",
    "All was paid.",
    "The sea was calm on {day}.",
    "The bells rang at the {place}.",
];

/// One fact of this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deal {
    pub seller: &'static str,
    pub ship: &'static str,
    pub item: &'static str,
    pub colour: &'static str,
    pub count: usize,
    pub day: &'static str,
    pub place: &'static str,
}

impl Deal {
    /// A deal with every part drawn at random.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self {
            seller: pick(&NAMES, rng),
            ship: pick(&SHIPS, rng),
            item: pick(&ITEMS, rng),
            colour: pick(&COLOURS, rng),
            count: rng.random_range(2..2 + NUMBERS.len()),
            day: pick(&DAYS, rng),
            place: pick(&PLACES, rng),
        }
    }

    /// Tells the deal by one of the [`TELLINGS`].
    pub fn tell(&self, telling: &str) -> String {
        self.fill(telling)
    }

    /// Fills the slots of any template of this grammar.
    pub fn fill(&self, template: &str) -> String {
        template
            .replace("{goods}", "{n} {colour} {item}")
            .replace("{seller}", self.seller)
            .replace("{ship}", self.ship)
            .replace("{item}", self.item)
            .replace("{colour}", self.colour)
            .replace("{n}", NUMBERS[self.count - 2])
            .replace("{figure}", &self.count.to_string())
            .replace("{day}", self.day)
            .replace("{place}", self.place)
    }
}

/// A sentence about nothing in particular, with a day and a place of its own.
pub fn aside(rng: &mut impl Rng) -> String {
    let elsewhere = Deal::draw(rng);
    elsewhere.fill(pick(&ASIDES, rng))
}

/// One of `words`, which is not empty.
pub fn pick<T: Copy>(words: &[T], rng: &mut impl RngCore) -> T {
    *words
        .choose(rng)
        .expect("the lists of this grammar are not empty")
}
