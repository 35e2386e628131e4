/// ROUGE-L (Lin 2004, aclanthology.org/W04-1013): the mean over texts of the F1 of the longest common subsequence of
/// words, `2 LCS / (made + wanted)`.
///
/// As `rouge_score` without stemming: words are runs of the letters a to z, whatever their case, and of digits. 0 where either
/// text has no word; NaN of nothing.
pub fn rouge_l(pairs: &[[String; 2]]) -> f64 {
    let one = |[made, wanted]: &[String; 2]| {
        let (made, wanted) = (words(made), words(wanted));
        match made.is_empty() || wanted.is_empty() {
            true => 0.0,
            false => 2.0 * common(&made, &wanted) as f64 / (made.len() + wanted.len()) as f64,
        }
    };
    pairs.iter().map(one).sum::<f64>() / pairs.len() as f64
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|char: char| !char.is_ascii_lowercase() && !char.is_ascii_digit());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

/// The length of the longest common subsequence, one row of its table at a time.
fn common(made: &[String], wanted: &[String]) -> usize {
    let mut row = vec![0; wanted.len() + 1];
    for word in made {
        let mut diagonal = 0;
        for (at, other) in wanted.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = match word == other {
                true => diagonal + 1,
                false => above.max(row[at]),
            };
            diagonal = above;
        }
    }
    row[wanted.len()]
}
