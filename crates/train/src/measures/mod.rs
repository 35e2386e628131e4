//! What is measured of answers, each with its definition: plain functions, equal to scikit-learn, SciPy, seqeval, sacrebleu
//! and rouge-score to the last digits.

mod accuracy;
mod bleu;
mod correlation;
mod entities;
mod exact_match;
mod f1;
mod matthews;
mod rouge_l;

pub use accuracy::accuracy;
pub use bleu::bleu;
pub use correlation::{pearson, spearman};
pub use entities::{EntityScores, entity_scores, is_bio};
pub use exact_match::exact_match;
pub use f1::{binary_f1, macro_f1};
pub use matthews::matthews;
pub use rouge_l::rouge_l;
