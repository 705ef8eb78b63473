//! Spread of intensities inside predicted classes and between them.
//!
//! Knows neither labels nor annotation.

use super::elements;
use crate::native::{GroupSum, global_sum};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What becomes smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The spread between classes minus that inside them, as in the released code: the opposite of what the term is called.
    #[default]
    AsCoded,
    /// The spread inside classes minus that between them.
    AsNamed,
}

/// Spread between classes, and spread inside them: means over the samples of the global batch.
///
/// With `a = probabilities * image`: between is the standard deviation over classes of the mean of `a`
/// over pixels; inside is the standard deviation of `a` over pixels, mean over classes. Both
/// deviations are unbiased, and one that is 0 has no gradient (WSL4MIS, `train_weakly_supervised_pCE_Inter&Intra_Class_2D.py`;
/// Luo et al., arXiv 2111.02403). `probabilities` is `[N, C, H, W]` or `[N, C, D, H, W]` with at least
/// two classes, this rank's share of `samples`, `image` alike with one channel.
pub fn intensity_spreads(
    probabilities: &Tensor,
    image: &Tensor,
    samples: usize,
    group: &dyn GroupSum,
) -> [Tensor; 2] {
    let weighted = (probabilities * image).flatten(2, -1); // [N, C, pixels]
    let kind = weighted.kind();
    let means = weighted.mean_dim([2i64].as_slice(), false, kind);
    let deviation = |of: &Tensor, dimension: i64| {
        // libtorch warns of deviations over nothing, and a share without samples has none.
        if of.size()[0] == 0 {
            return of.sum_dim_intlist([dimension].as_slice(), false, kind);
        }
        of.std_dim([dimension].as_slice(), true, false)
    };
    let (between, inside) = (deviation(&means, 1), deviation(&weighted, 2));
    [between, inside].map(|each| {
        let count = elements(&each, samples);
        global_sum(&each.sum(kind), group) / count
    })
}

/// The two of [`intensity_spreads`] with their signs.
pub fn intensity_variance(
    probabilities: &Tensor,
    image: &Tensor,
    sign: Sign,
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let [between, inside] = intensity_spreads(probabilities, image, samples, group);
    match sign {
        Sign::AsCoded => between - inside,
        Sign::AsNamed => inside - between,
    }
}
