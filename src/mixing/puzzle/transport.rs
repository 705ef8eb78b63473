//! How salient patches of an image move to where the image is shown.
//!
//! The rule speaks of costs between all pairs of patches. A patch never wins a place where its cost is not
//! below 0, so only the few places are looked at that its saliency bears.

/// A square image cut into patches.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    /// Patches along a side, at least 1.
    pub side: usize,
    /// The share of each patch in the saliency of the image, `[side * side]`, row-major, at least 0; their
    /// sum is 1.
    pub saliency: &'a [f32],
    /// Which patches of the mix show the image, like `saliency`.
    pub shown: &'a [bool],
    /// What moving a patch by `side - 1` costs, in shares of saliency, at least 0.
    pub distance_weight: f64,
}

/// Everywhere that the most salient patch could go.
struct Reach {
    /// Patches that it goes at most, along rows or columns.
    steps: usize,
    /// From near to far, those at one distance in the order of patches.
    offsets: Vec<Offset>,
    /// Which places show the image, in a frame of `steps` places that do not.
    shown: Vec<bool>,
}

/// A place relative to where a patch comes from.
struct Offset {
    /// Indices that lead there within the frame.
    steps: isize,
    /// What moving there costs, before the saliency of the patch is taken off.
    cost: f32,
}

/// How far a patch has come in its search for a place.
#[derive(Clone, Copy, Default)]
struct Search {
    /// The first offset of those at the cost at which it searches.
    first: usize,
    /// At this cost all places before this one in the frame were tried.
    next: usize,
}

/// The patch that holds a place.
#[derive(Clone, Copy)]
struct Holder {
    patch: usize,
    cost: f32,
}

impl Patches<'_> {
    /// Which patch comes to each patch of the mix, `[side * side]`: its index, or -1 for none. Where the image
    /// is not shown, none comes.
    ///
    /// Moving patch `i` to place `j` costs `weight d^2 / (side - 1)^2 - s_i` in single precision, with `d` their
    /// distance in patches and `s_i` the saliency of the patch. In each of `side` rounds every patch picks its
    /// cheapest place. Of those that pick the same one the cheapest wins, if its cost is below 0; the others
    /// pay 1 more for this place from then on. Of equal costs the lowest index counts. What is won in the last
    /// round is the result.
    pub fn sources(&self) -> Vec<i32> {
        let reach = self.reach();
        let mut searches = vec![Search::default(); self.saliency.len()];
        let mut holders: Vec<Option<Holder>> = vec![None; reach.shown.len()];
        // Who holds a place picks it again. Who lost one never comes back to it: the saliency of both outweighs
        // what the loser would have gained, so that this was at most 1/2, and with 1 more its cost is above 0.
        let mut searching: Vec<usize> = (0..self.saliency.len()).collect();
        for _ in 0..self.side {
            let mut losers = Vec::new();
            for &patch in &searching {
                let saliency = self.saliency[patch];
                let start = reach.framed(patch, self.side);
                let Some((place, cost)) = reach.pick(start, saliency, &mut searches[patch]) else {
                    continue;
                };
                let holder = &mut holders[place];
                let wins = holder.is_none_or(|held| (cost, patch) < (held.cost, held.patch));
                let loser = if wins {
                    holder.replace(Holder { patch, cost })
                } else {
                    Some(Holder { patch, cost })
                };
                losers.extend(loser.map(|loser| loser.patch));
            }
            if losers.is_empty() {
                break;
            }
            searching = losers;
        }
        let holder = |place| holders[reach.framed(place, self.side)];
        let patches = (0..self.saliency.len()).map(holder);
        patches.map(|holder| holder.map_or(-1, |held| held.patch as i32)).collect()
    }

    fn reach(&self) -> Reach {
        let longest = (self.side - 1).max(1);
        let cost = |squared: usize| {
            squared as f32 / (longest * longest) as f32 * self.distance_weight as f32
        };
        let most = self.saliency.iter().copied().fold(0.0, f32::max);
        let steps = (1..self.side).take_while(|steps| cost(steps * steps) < most).count();
        let columns = self.side + 2 * steps;
        let range = -(steps as isize)..=steps as isize;
        let mut offsets: Vec<(usize, Offset)> = Vec::new();
        for row in range.clone() {
            for column in range.clone() {
                let squared = (row * row + column * column) as usize;
                let offset = Offset { steps: row * columns as isize + column, cost: cost(squared) };
                if offset.cost < most {
                    offsets.push((squared, offset));
                }
            }
        }
        offsets.sort_by_key(|(squared, _)| *squared);
        let offsets = offsets.into_iter().map(|(_, offset)| offset).collect();
        let mut reach = Reach { steps, offsets, shown: vec![false; columns * columns] };
        for (row, shown) in self.shown.chunks_exact(self.side).enumerate() {
            let start = reach.framed(row * self.side, self.side);
            reach.shown[start..start + self.side].copy_from_slice(shown);
        }
        reach
    }
}

impl Reach {
    /// Where a patch of `side` x `side` lies within the frame.
    fn framed(&self, patch: usize, side: usize) -> usize {
        let columns = side + 2 * self.steps;
        (patch / side + self.steps) * columns + patch % side + self.steps
    }

    /// The cheapest place of a patch beyond those that it tried, and its cost, below 0.
    fn pick(&self, start: usize, saliency: f32, search: &mut Search) -> Option<(usize, f32)> {
        loop {
            let cost = self.offsets.get(search.first)?.cost - saliency;
            if cost >= 0.0 {
                return None;
            }
            // Usually those at one distance; more where the difference is lost in rounding.
            let rest = self.offsets[search.first..].iter();
            let equal = rest.take_while(|offset| offset.cost - saliency <= cost);
            let (mut tried, mut best) = (0, usize::MAX);
            for offset in equal {
                let place = start.wrapping_add_signed(offset.steps);
                if place >= search.next && self.shown[place] {
                    best = best.min(place);
                }
                tried += 1;
            }
            if best < usize::MAX {
                search.next = best + 1;
                return Some((best, cost));
            }
            *search = Search { first: search.first + tried, next: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The same with a cost for every pair of patches.
    fn dense(patches: &Patches<'_>) -> Vec<i32> {
        let (side, count) = (patches.side, patches.saliency.len());
        let longest = (side - 1).max(1);
        let mut costs: Vec<Vec<f32>> = (0..count)
            .map(|source| {
                let cost = |place: usize| {
                    let rows = (source / side).abs_diff(place / side);
                    let columns = (source % side).abs_diff(place % side);
                    let squared = (rows * rows + columns * columns) as f32;
                    let cost =
                        squared / (longest * longest) as f32 * patches.distance_weight as f32;
                    cost - patches.saliency[source] * f32::from(u8::from(patches.shown[place]))
                };
                (0..count).map(cost).collect()
            })
            .collect();
        let mut plan = vec![-1; count];
        for _ in 0..side {
            let first_least = |costs: &Vec<f32>| {
                (1..count)
                    .fold(0, |best, place| if costs[place] < costs[best] { place } else { best })
            };
            let picks: Vec<usize> = costs.iter().map(first_least).collect();
            for (place, winner) in plan.iter_mut().enumerate() {
                let pickers = (0..count).filter(|&source| picks[source] == place);
                let cheapest = pickers.reduce(|best, source| {
                    if costs[source][place] < costs[best][place] { source } else { best }
                });
                let cheapest = cheapest.filter(|&source| costs[source][place] < 0.0);
                *winner = cheapest.map_or(-1, |source| source as i32);
            }
            for (source, &pick) in picks.iter().enumerate() {
                if plan[pick] != source as i32 {
                    costs[source][pick] += 1.0;
                }
            }
        }
        plan
    }

    /// Saliencies with ties, zeros and peaks; where nothing is shown, part and all.
    fn problems() -> impl Strategy<Value = (usize, Vec<f32>, Vec<bool>, f64)> {
        (1usize..8).prop_flat_map(|side| {
            let count = side * side;
            let peaks = prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..3.0, Just(200.0)];
            let weights = prop_oneof![Just(0.8), Just(0.0), Just(1e-7), 0.001f64..3.0];
            (Just(side), vec(peaks, count), vec(any::<bool>(), count), weights)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn what_moves_is_what_the_costs_of_all_pairs_say(
            (side, mut saliency, shown, distance_weight) in problems(),
        ) {
            let total: f32 = saliency.iter().sum();
            for share in &mut saliency {
                *share /= total.max(1.0);
            }
            let patches = Patches { side, saliency: &saliency, shown: &shown, distance_weight };
            prop_assert_eq!(patches.sources(), dense(&patches));
        }
    }

    #[test]
    fn patches_give_way_to_more_salient_ones_and_go_to_the_nearest_place() {
        let saliency = [0.0, 0.1, 0.5, 0.4];
        let found = |shown: [bool; 4]| {
            let mut image = [[0.0; 4]; 4];
            let mut places = [[false; 4]; 4];
            (image[0], places[0]) = (saliency, shown);
            let (saliency, shown) = (image.as_flattened(), places.as_flattened());
            Patches { side: 4, saliency, shown, distance_weight: 0.8 }.sources()[..4].to_vec()
        };
        assert_eq!(found([true; 4]), [-1, 1, 2, 3]);
        // Patch 3 bears the way to place 1, where 2 is cheaper, and not that to place 0, to which 1 gives way.
        assert_eq!(found([true, true, false, false]), [1, 2, -1, -1]);
        assert_eq!(found([false; 4]), [-1; 4]);
    }
}
