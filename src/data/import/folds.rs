//! Which fold holds a patient out, so that folds are alike in size and in the classes that they show.
//!
//! Iterative stratification (Sechidis et al., ECML PKDD 2011) over whole patients, with folds whose sizes differ by at
//! most one. Knows patients by name and the numbers of their classes, and nothing of cases or files.

use crate::random::{Key, permutation};
use crate::shares::local_share;
use std::collections::{BTreeMap, BTreeSet};

/// A fold that is being filled.
struct Room {
    /// How many patients it can still take.
    places: usize,
    /// For each class how many of its patients it should still get, times the number of all patients.
    wanted: BTreeMap<u8, i64>,
}

/// The fold of each patient, counted from 1 to `folds`; `patients` have the numbers of the classes that occur in
/// them. Sizes of folds differ by at most one, and the rarest class is spread as evenly as can be, then the next.
///
/// Equal seeds give equal folds.
pub(super) fn stratified(
    patients: &BTreeMap<String, BTreeSet<u8>>,
    folds: u32,
    seed: u64,
) -> BTreeMap<String, u32> {
    let count = folds.max(1) as usize;
    let sizes = (0..count).map(|fold| local_share(patients.len(), count, fold).len());
    let spread = spread(patients, &sizes.collect::<Vec<_>>(), Key::new(seed).purpose("folds"));
    spread.into_iter().map(|(patient, fold)| (patient, fold as u32 + 1)).collect()
}

/// The patients to test with: the nearest whole number to `share` of all, at least one and never all, who show the
/// classes as often as the others.
pub(super) fn test_part(
    patients: &BTreeMap<String, BTreeSet<u8>>,
    share: f64,
    seed: u64,
) -> BTreeSet<String> {
    let count = patients.len();
    let wanted = (share * count as f64).round() as usize;
    let wanted = wanted.max(1).min(count.saturating_sub(1));
    let spread = spread(
        patients,
        &[count - wanted, wanted],
        Key::new(seed).purpose("patients to test with"),
    );
    spread.into_iter().filter(|(_, fold)| *fold == 1).map(|(patient, _)| patient).collect()
}

/// The fold of each patient, counted from 0, where folds have these `sizes`, which together are all patients.
fn spread(
    patients: &BTreeMap<String, BTreeSet<u8>>,
    sizes: &[usize],
    key: Key,
) -> BTreeMap<String, usize> {
    let named: Vec<(&String, &BTreeSet<u8>)> = patients.iter().collect();
    let mut left: Vec<_> =
        permutation(key, named.len()).into_iter().map(|index| named[index]).collect();
    let (counts, all) = (counts(&left), left.len() as i64);
    let room = |&places: &usize| {
        let wanted = counts.iter().map(|(&class, &count)| (class, count * places as i64));
        Room { places, wanted: wanted.collect() }
    };
    let mut rooms: Vec<Room> = sizes.iter().map(room).collect();
    let mut found = BTreeMap::new();
    while !left.is_empty() {
        let rarest = self::counts(&left).into_iter().min_by_key(|&(class, count)| (count, class));
        let rarest = rarest.map(|(class, _)| class);
        let (showing, others): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(_, classes)| rarest.is_none_or(|class| classes.contains(&class)));
        for (patient, classes) in showing {
            let Some(fold) = neediest(&rooms, rarest) else { return found };
            let room = &mut rooms[fold];
            room.places -= 1;
            for class in classes {
                *room.wanted.entry(*class).or_default() -= all;
            }
            found.insert(patient.clone(), fold);
        }
        left = others;
    }
    found
}

/// How many patients show each class.
fn counts(patients: &[(&String, &BTreeSet<u8>)]) -> BTreeMap<u8, i64> {
    let mut counts = BTreeMap::new();
    for class in patients.iter().flat_map(|(_, classes)| *classes) {
        *counts.entry(*class).or_default() += 1;
    }
    counts
}

/// The fold with places that lacks most patients of `class`, of equal ones that with most places, of equal ones the
/// first.
fn neediest(rooms: &[Room], class: Option<u8>) -> Option<usize> {
    let wanted = |room: &Room| class.and_then(|class| room.wanted.get(&class)).copied();
    let open = rooms.iter().enumerate().filter(|(_, room)| room.places > 0);
    // Of equal ones `max_by_key` gives the last.
    open.rev().max_by_key(|(_, room)| (wanted(room), room.places)).map(|(fold, _)| fold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Patients = BTreeMap<String, BTreeSet<u8>>;

    /// `count` patients, of whom one in `class + 1` shows a class, whoever they are.
    fn random(seed: u64, count: u64, classes: u8) -> Patients {
        let patient = |number: u64| {
            let mut draws = Key::new(seed).number(number).draws();
            let shown = (1..=classes).filter(|&class| draws.below(u64::from(class) + 1) == 0);
            (format!("p{number:03}"), shown.collect())
        };
        (0..count).map(patient).collect()
    }

    /// How many patients of each fold show a class, or are in it at all.
    fn in_folds(patients: &Patients, folds: &BTreeMap<String, u32>, class: Option<u8>) -> Vec<i64> {
        let mut counts = vec![0; folds.values().copied().max().unwrap_or_default() as usize];
        for (patient, fold) in folds {
            if class.is_none_or(|class| patients[patient].contains(&class)) {
                counts[*fold as usize - 1] += 1;
            }
        }
        counts
    }

    fn difference(counts: &[i64]) -> i64 {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn everybody_is_in_one_fold_and_folds_are_alike(
            seed in 0u64..1000, count in 5u64..60, classes in 0u8..6, folds in 2u32..6,
        ) {
            let patients = random(seed, count, classes);
            let found = stratified(&patients, folds, seed);
            prop_assert!(found.keys().eq(patients.keys()));
            prop_assert!(difference(&in_folds(&patients, &found, None)) <= 1);
            let all = counts(&patients.iter().collect::<Vec<_>>());
            if let Some((&rarest, _)) = all.iter().min_by_key(|(class, count)| (**count, **class)) {
                prop_assert!(difference(&in_folds(&patients, &found, Some(rarest))) <= 1);
            }
            prop_assert_eq!(&found, &stratified(&patients, folds, seed));
        }

        #[test]
        fn a_test_part_has_its_share_of_patients_and_of_the_rarest_class(
            seed in 0u64..1000, count in 2u64..60, percent in 1u32..100,
        ) {
            let (patients, share) = (random(seed, count, 4), f64::from(percent) / 100.0);
            let tested = test_part(&patients, share, seed);
            let expected = (share * count as f64).round().clamp(1.0, count as f64 - 1.0);
            prop_assert_eq!(tested.len(), expected as usize);
            let all = counts(&patients.iter().collect::<Vec<_>>());
            if let Some((rarest, &count)) = all.iter().min_by_key(|(class, count)| (**count, **class)) {
                let found = tested.iter().filter(|name| patients[*name].contains(rarest)).count();
                let due = tested.len() as f64 / patients.len() as f64 * count as f64;
                prop_assert!((found as f64 - due).abs() < 1.0, "{found} of {due}");
            }
        }
    }

    #[test]
    fn classes_are_spread_more_evenly_than_by_name() {
        let unevenness = |patients: &Patients, folds: &BTreeMap<String, u32>| {
            (1..=6).map(|class| difference(&in_folds(patients, folds, Some(class)))).sum::<i64>()
        };
        let [mut by_name, mut by_class] = [0; 2];
        for seed in 0..100 {
            let patients = random(seed, 40, 6);
            let contiguous = patients.keys().zip(0..).map(|(name, at)| (name.clone(), at / 8 + 1));
            by_name += unevenness(&patients, &contiguous.collect());
            by_class += unevenness(&patients, &stratified(&patients, 5, seed));
        }
        // 100 times six classes: a difference of 1 can mostly not be avoided, and by name it is nearly 4.
        assert!(by_class < 800 && 2 * by_class < by_name, "{by_class} {by_name}");
    }

    #[test]
    fn other_seeds_give_other_folds_and_few_patients_the_first_ones() {
        let patients = random(3, 20, 3);
        assert_ne!(stratified(&patients, 5, 1), stratified(&patients, 5, 2));
        let three = random(3, 3, 3);
        let mut folds: Vec<u32> = stratified(&three, 5, 1).into_values().collect();
        folds.sort_unstable();
        assert_eq!(folds, [1, 2, 3]);
        assert!(stratified(&Patients::new(), 5, 1).is_empty());
    }
}
