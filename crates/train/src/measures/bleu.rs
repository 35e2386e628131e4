use std::collections::HashMap;

/// The longest sequence of words that is compared.
const ORDER: usize = 4;

/// BLEU of a corpus (Papineni et al. 2002, doi:10.3115/1073083.1073135), from 0 to 100, with one reference for each text:
/// `100 BP exp(mean of log p_n, n = 1..4)`, where `p_n` is the share of the n-grams made that the reference has, and
/// `BP = exp(1 - wanted / made)` where fewer words were made than wanted.
///
/// As `sacrebleu.corpus_bleu`: words by its tokenizer `13a`, case kept, and where no n-gram of a length is right its share
/// counts as half, a quarter, ... of one (smoothing `exp`, method 3 of Chen and Cherry 2014, aclanthology.org/W14-3346). 0
/// where no single word is right.
pub fn bleu(pairs: &[[String; 2]]) -> f64 {
    let mut right = [0_usize; ORDER];
    let mut made_grams = [0_usize; ORDER];
    let (mut made_words, mut wanted_words) = (0, 0);
    for [made, wanted] in pairs {
        let (made, wanted) = (words(made), words(wanted));
        made_words += made.len();
        wanted_words += wanted.len();
        for n in 1..=ORDER {
            let (made, wanted) = (grams(&made, n), grams(&wanted, n));
            made_grams[n - 1] += made.values().sum::<usize>();
            let shared = made.iter().map(|(gram, count)| {
                let allowed = wanted.get(gram).copied().unwrap_or(0);
                (*count).min(allowed)
            });
            right[n - 1] += shared.sum::<usize>();
        }
    }
    if right[0] == 0 || made_grams.contains(&0) {
        return 0.0;
    }
    let mut smoothing = 1.0;
    let shares = right.iter().zip(&made_grams).map(|(right, all)| {
        let right = match right {
            0 => {
                smoothing *= 2.0;
                1.0 / smoothing
            }
            right => *right as f64,
        };
        (right / *all as f64).ln()
    });
    let mean = shares.sum::<f64>() / ORDER as f64;
    let brevity = match made_words < wanted_words {
        true => 1.0 - wanted_words as f64 / made_words as f64,
        false => 0.0,
    };
    100.0 * (brevity + mean).exp()
}

fn grams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// The tokenizer `13a` of the WMT's mteval script: punctuation apart, but for points and commas between digits.
fn words(text: &str) -> Vec<String> {
    let text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    let text = text
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut chars: Vec<char> = Vec::with_capacity(text.len() + 2);
    chars.push(' ');
    for char in text.chars() {
        match is_symbol(char) {
            true => chars.extend([' ', char, ' ']),
            false => chars.push(char),
        }
    }
    chars.push(' ');
    let is_digit = |char: char| char.is_ascii_digit();
    let is_stop = |char: char| matches!(char, '.' | ',');
    // Each pair is found to the right of the one before it, as a regular expression finds them.
    let chars = spaced(
        chars,
        |a, b| !is_digit(a) && is_stop(b),
        |a, b| [a, ' ', b, ' '],
    );
    let chars = spaced(
        chars,
        |a, b| is_stop(a) && !is_digit(b),
        |a, b| [' ', a, ' ', b],
    );
    let chars = spaced(
        chars,
        |a, b| is_digit(a) && b == '-',
        |a, b| [a, ' ', b, ' '],
    );
    let text: String = chars.into_iter().collect();
    text.split_whitespace().map(str::to_string).collect()
}

/// Whether a character always stands alone: the punctuation of ASCII without `'`, `,`, `-` and `.`.
fn is_symbol(char: char) -> bool {
    matches!(char, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

fn spaced(
    chars: Vec<char>,
    finds: impl Fn(char, char) -> bool,
    put: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut spaced = Vec::with_capacity(chars.len());
    let mut rest = chars.as_slice();
    while let [first, after @ ..] = rest {
        match after.first() {
            Some(second) if finds(*first, *second) => {
                spaced.extend(put(*first, *second));
                rest = &after[1..];
            }
            _ => {
                spaced.push(*first);
                rest = after;
            }
        }
    }
    spaced
}
