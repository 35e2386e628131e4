use std::collections::BTreeSet;

use burn_lora_linalg::{Matrix, svd};

use super::prune::{MajoritySign, Pruning, merge};
use super::{FactorSet, Factors};
use crate::error::{AdapterError, nearest};

/// The ways to make one adapter of several, by PEFT's `combination_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CombinationMethod {
    /// `linear`: the factors are summed, each by the root of its weight. Rough: the product of sums is no sum of products.
    Linear,
    /// `cat`: the factors stand side by side. Exact; the ranks add up.
    Cat,
    /// `svd`: the changes are summed, and the sum is decomposed.
    Svd,
    /// `ties`: of the factors' largest elements, those that agree in sign (TIES).
    Ties,
    /// `ties_svd`: the same of the changes, decomposed.
    TiesSvd,
    /// `dare_linear`: the factors' elements are dropped at random and the rest scaled up (DARE).
    DareLinear,
    /// `dare_linear_svd`: the same of the changes, decomposed.
    DareLinearSvd,
    /// `dare_ties`: DARE's dropping, then TIES' election.
    DareTies,
    /// `dare_ties_svd`: the same of the changes, decomposed.
    DareTiesSvd,
    /// `magnitude_prune`: the factors' largest elements are summed.
    MagnitudePrune,
    /// `magnitude_prune_svd`: the same of the changes, decomposed.
    MagnitudePruneSvd,
}

/// What a method drops, before it sums.
#[derive(Clone, Copy, PartialEq)]
enum Drops {
    Nothing,
    Smallest,
    Random,
}

impl CombinationMethod {
    /// Every method.
    pub const ALL: [Self; 11] = [
        Self::Linear,
        Self::Cat,
        Self::Svd,
        Self::Ties,
        Self::TiesSvd,
        Self::DareLinear,
        Self::DareLinearSvd,
        Self::DareTies,
        Self::DareTiesSvd,
        Self::MagnitudePrune,
        Self::MagnitudePruneSvd,
    ];

    /// PEFT's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Svd => "svd",
            Self::Ties => "ties",
            Self::TiesSvd => "ties_svd",
            Self::DareLinear => "dare_linear",
            Self::DareLinearSvd => "dare_linear_svd",
            Self::DareTies => "dare_ties",
            Self::DareTiesSvd => "dare_ties_svd",
            Self::MagnitudePrune => "magnitude_prune",
            Self::MagnitudePruneSvd => "magnitude_prune_svd",
        }
    }

    /// The method of PEFT's word.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Factors`] with the nearest word.
    pub fn parse(word: &str) -> Result<Self, AdapterError> {
        let found = Self::ALL.into_iter().find(|method| method.word() == word);
        found.ok_or_else(|| {
            let near = nearest(word, Self::ALL.map(Self::word));
            let hint = near.map_or(String::new(), |near| format!(" (did you mean \"{near}\"?)"));
            refused(vec![format!("there is no combination \"{word}\"{hint}")])
        })
    }

    fn drops(self) -> Drops {
        match self {
            Self::Linear | Self::Cat | Self::Svd => Drops::Nothing,
            Self::Ties | Self::TiesSvd | Self::MagnitudePrune | Self::MagnitudePruneSvd => {
                Drops::Smallest
            }
            Self::DareLinear | Self::DareLinearSvd | Self::DareTies | Self::DareTiesSvd => {
                Drops::Random
            }
        }
    }

    fn elects(self) -> bool {
        matches!(
            self,
            Self::Ties | Self::TiesSvd | Self::DareTies | Self::DareTiesSvd
        )
    }

    /// Whether the changes are combined, and not the factors.
    fn decomposes(self) -> bool {
        self == Self::Svd || self.word().ends_with("_svd")
    }
}

/// How several adapters are made one.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// The method.
    pub method: CombinationMethod,
    /// The share of elements that is kept, in `(0, 1]`, by the methods that drop some.
    pub density: Option<f64>,
    /// That share of each adapter, in their order, where they differ; PEFT has one for all.
    pub densities: Vec<f64>,
    /// How TIES elects a sign.
    pub majority_sign: MajoritySign,
    /// The rank that a decomposition keeps; the largest of the adapters where there is none.
    pub rank: Option<usize>,
    /// The quantile of a decomposition's elements beyond which they are cut off.
    pub clamp: Option<f64>,
    /// Seed of what DARE drops.
    pub seed: u64,
}

impl Combination {
    /// By this method, without further settings.
    pub fn new(method: CombinationMethod) -> Self {
        Self {
            method,
            density: None,
            densities: Vec::new(),
            majority_sign: MajoritySign::default(),
            rank: None,
            clamp: None,
            seed: 0,
        }
    }

    /// Sets the share of elements that is kept.
    pub fn with_density(mut self, density: f64) -> Self {
        self.density = Some(density);
        self
    }

    /// Sets the share of elements that is kept of each adapter.
    pub fn with_densities(mut self, densities: impl IntoIterator<Item = f64>) -> Self {
        self.densities = densities.into_iter().collect();
        self
    }

    /// Sets the rank that a decomposition keeps.
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = Some(rank);
        self
    }

    /// What is wrong with it for so many adapters.
    fn faults(&self, count: usize) -> Vec<String> {
        let mut faults = Vec::new();
        let word = self.method.word();
        let given = self.density.iter().chain(&self.densities);
        let is_given = given.clone().next().is_some();
        match self.method.drops() != Drops::Nothing {
            true if !is_given => faults.push(format!("{word} needs a density")),
            true => faults.extend(
                given
                    .filter(|density| !(**density > 0.0 && **density <= 1.0))
                    .map(|density| {
                        format!("the density is {density}; it must be greater than 0 and at most 1")
                    }),
            ),
            false if is_given => faults.push(format!("{word} takes no density")),
            false => {}
        }
        match (self.densities.len(), self.density) {
            (0, _) => {}
            (_, Some(_)) => faults.push("there is a density for all and one for each".to_string()),
            (some, None) if some != count => {
                faults.push(format!("there are {some} densities for {count} adapters"));
            }
            _ => {}
        }
        let decomposes = self.method.decomposes();
        match self.rank {
            Some(0) => faults.push("the rank is 0".to_string()),
            Some(_) if !decomposes => faults.push(format!("{word} takes no rank")),
            _ => {}
        }
        match self.clamp {
            Some(clamp) if !(0.0..=1.0).contains(&clamp) => {
                faults.push(format!("the clamp is {clamp}; it is a quantile in [0, 1]"));
            }
            Some(_) if !decomposes => faults.push(format!("{word} takes no clamp")),
            _ => {}
        }
        faults
    }

    /// What is dropped of each part, by its density.
    fn pruning(&self, parts: &[Part<'_>], stream: u64) -> Vec<Pruning> {
        let of_part = |part: &Part<'_>| match self.method.drops() {
            Drops::Nothing => Pruning::Nothing,
            Drops::Smallest => Pruning::Magnitude(part.density),
            Drops::Random => Pruning::Random {
                density: part.density,
                seed: self.seed,
                stream,
            },
        };
        parts.iter().map(of_part).collect()
    }

    /// The factors of one layer from those that have it.
    fn layer(&self, parts: &[Part<'_>], index: u64) -> Result<Factors, String> {
        if self.method == CombinationMethod::Cat {
            return Ok(side_by_side(parts));
        }
        if self.method.decomposes() {
            return self.decomposed(parts, index);
        }
        let rank = parts[0].factors.rank();
        if parts.iter().any(|part| part.factors.rank() != rank) {
            let ranks = parts.iter().map(|part| part.factors.rank().to_string());
            let (word, ranks) = (self.method.word(), ranks.collect::<Vec<_>>().join(" and "));
            return Err(format!("has the ranks {ranks}; {word} needs one"));
        }
        // A negative weight may turn one of the two factors only.
        let roots: Vec<f64> = parts.iter().map(|part| part.total().abs().sqrt()).collect();
        let signed: Vec<f64> = parts
            .iter()
            .zip(&roots)
            .map(|(part, root)| if part.total() < 0.0 { -root } else { *root })
            .collect();
        let elect = self.method.elects().then_some(self.majority_sign);
        let a: Vec<Matrix> = parts.iter().map(|part| part.factors.a.clone()).collect();
        let b: Vec<Matrix> = parts.iter().map(|part| part.factors.b.clone()).collect();
        Ok(Factors {
            a: merge(&a, &signed, &self.pruning(parts, 2 * index), elect),
            b: merge(&b, &roots, &self.pruning(parts, 2 * index + 1), elect),
            scale: 1.0,
        })
    }

    fn decomposed(&self, parts: &[Part<'_>], index: u64) -> Result<Factors, String> {
        let deltas: Vec<Matrix> = parts.iter().map(|part| part.factors.delta()).collect();
        let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
        let elect = self.method.elects().then_some(self.majority_sign);
        let delta = merge(&deltas, &weights, &self.pruning(parts, 2 * index), elect);
        let most = parts.iter().map(|part| part.factors.rank()).max();
        let rank = self.rank.or(most).unwrap_or(1);
        let found = svd(&delta).map_err(|error| error.to_string())?;
        let found = found.truncated(rank);
        // PEFT's layout: the singular values are in B.
        let (mut a, mut b) = (found.u, found.v.scaled_columns(&found.s).transpose());
        if let Some(clamp) = self.clamp {
            let mut values: Vec<f64> = a.iter().chain(b.iter()).collect();
            let bound = quantile(&mut values, clamp);
            a = a.map(|value| value.min(bound).max(-bound));
            b = b.map(|value| value.min(bound).max(-bound));
        }
        Ok(Factors { a, b, scale: 1.0 })
    }
}

/// What one adapter has for a layer.
struct Part<'a> {
    factors: &'a Factors,
    weight: f64,
    density: f64,
}

impl Part<'_> {
    /// What the product of its factors is multiplied by.
    fn total(&self) -> f64 {
        self.weight * self.factors.scale
    }
}

fn side_by_side(parts: &[Part<'_>]) -> Factors {
    let weighted = |part: &Part<'_>| part.factors.a.scaled(part.total());
    let first = (weighted(&parts[0]), parts[0].factors.b.clone());
    let (a, b) = parts[1..].iter().fold(first, |(a, b), part| {
        (a.beside(&weighted(part)), b.above(&part.factors.b))
    });
    Factors { a, b, scale: 1.0 }
}

/// With linear interpolation between neighbors.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    values[below] + (values[above] - values[below]) * place.fract()
}

/// Makes one adapter of several, each with a weight, which may be negative, as PEFT's `add_weighted_adapter` does.
///
/// A layer that some of the adapters have is combined from those. The scale of the new adapter is 1: weights and scales are
/// in its factors.
///
/// # Errors
///
/// [`AdapterError::Factors`] with every fault: no adapter, a weight too few or too many or not finite, a setting that is
/// missing, out of range or without meaning for the method, layers whose shapes, or for some methods ranks, differ.
///
/// ```
/// use burn_lora_adapter::{Combination, CombinationMethod, FactorSet, Factors, combine};
/// use burn_lora_linalg::Matrix;
///
/// let adapter = |value: f64| -> FactorSet {
///     let (a, b) = (Matrix::from_fn(4, 2, |_, _| value), Matrix::from_fn(2, 3, |_, _| 1.0));
///     [("layer".to_string(), Factors { a, b, scale: 2.0 })].into_iter().collect()
/// };
/// let cat = Combination::new(CombinationMethod::Cat);
/// let both = combine(&[(&adapter(1.0), 0.5), (&adapter(3.0), -1.0)], &cat)?;
/// let layer = &both.layers["layer"];
/// assert_eq!(layer.rank(), 4);
/// assert_eq!(layer.delta().get(0, 0), 0.5 * 4.0 - 12.0);
/// # Ok::<(), burn_lora_adapter::AdapterError>(())
/// ```
pub fn combine(
    adapters: &[(&FactorSet, f64)],
    combination: &Combination,
) -> Result<FactorSet, AdapterError> {
    let mut faults = combination.faults(adapters.len());
    if adapters.is_empty() {
        faults.push("there is no adapter to combine".to_string());
    }
    for (index, (_, weight)) in adapters.iter().enumerate() {
        if !weight.is_finite() {
            faults.push(format!("the weight of adapter {index} is {weight}"));
        }
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let paths: BTreeSet<&String> = adapters
        .iter()
        .flat_map(|(set, _)| set.layers.keys())
        .collect();
    let mut combined = FactorSet::default();
    for (path, index) in paths.into_iter().zip(0..) {
        let own = adapters.iter().enumerate();
        let own = own.filter_map(|(place, (set, weight))| {
            let density = combination.densities.get(place).copied();
            Some(Part {
                factors: set.get(path)?,
                weight: *weight,
                density: density.or(combination.density).unwrap_or(1.0),
            })
        });
        let parts: Vec<Part<'_>> = own.collect();
        let shape = parts[0].factors.shape();
        if let Some(other) = parts.iter().find(|part| part.factors.shape() != shape) {
            let other = other.factors.shape();
            faults.push(format!("{path} is {shape:?} and {other:?}"));
            continue;
        }
        match combination.layer(&parts, index) {
            Ok(factors) => drop(combined.layers.insert(path.clone(), factors)),
            Err(fault) => faults.push(format!("{path} {fault}")),
        }
    }
    match faults.is_empty() {
        true => Ok(combined),
        false => Err(refused(faults)),
    }
}

fn refused(faults: Vec<String>) -> AdapterError {
    AdapterError::Factors {
        action: "the combination",
        faults,
    }
}
