//! Laws of the order of samples and of the loader: every slice once per epoch, any number of
//! ranks sees the same batch, and preparing ahead changes nothing.

use proptest::prelude::*;
use scrimp::data::order::Order;
use scrimp::random::permutation;
use scrimp::shares::local_share;

fn orders() -> impl Strategy<Value = Order> {
    (1usize..200, 1usize..40, any::<bool>(), any::<u64>())
        .prop_filter("a full batch exists", |&(count, batch, drop_last, _)| {
            !drop_last || count >= batch
        })
        .prop_map(|(slice_count, batch_size, drop_last, seed)| Order {
            slice_count,
            batch_size,
            drop_last,
            seed,
        })
}

proptest! {
    #[test]
    fn an_epoch_shows_each_slice_exactly_once(
        order in orders(),
        epoch in 0u64..5,
        ranks in 1usize..9,
    ) {
        let steps = order.steps_per_epoch();
        let mut seen = vec![0usize; order.slice_count];
        for step in epoch * steps + 1..=(epoch + 1) * steps {
            let batch = order.batch(step);
            for rank in 0..ranks {
                for position in local_share(batch.len(), ranks, rank) {
                    seen[batch[position]] += 1;
                }
            }
        }
        let shown: usize = seen.iter().sum();
        prop_assert!(seen.iter().all(|&count| count <= 1));
        let left_out = if order.drop_last { order.slice_count % order.batch_size } else { 0 };
        prop_assert_eq!(shown, order.slice_count - left_out);
    }

    #[test]
    fn shares_are_contiguous_even_and_complete(count in 0usize..100, ranks in 1usize..20) {
        let mut next = 0;
        for rank in 0..ranks {
            let share = local_share(count, ranks, rank);
            prop_assert_eq!(share.start, next);
            prop_assert!(share.len() == count / ranks || share.len() == count.div_ceil(ranks));
            next = share.end;
        }
        prop_assert_eq!(next, count);
    }

    #[test]
    fn epochs_and_seeds_differ(seed in any::<u64>()) {
        let order = Order { slice_count: 60, batch_size: 60, drop_last: false, seed };
        prop_assert_ne!(order.batch(1), order.batch(2));
        prop_assert_ne!(order.batch(1), Order { seed: seed ^ 1, ..order }.batch(1));
        prop_assert_ne!(order.augmentation(1, 0), order.augmentation(2, 0));
        prop_assert_ne!(order.augmentation(1, 0), order.augmentation(1, 1));
    }
}

#[test]
fn the_order_of_an_epoch_is_the_permutation_of_its_key() {
    let order = Order { slice_count: 7, batch_size: 3, drop_last: false, seed: 11 };
    let key = scrimp::random::Key::new(11).purpose("shuffle").number(1);
    let epoch: Vec<usize> = (4..=6).flat_map(|step| order.batch(step)).collect();
    assert_eq!(epoch, permutation(key, 7));
    assert_eq!(order.batch(6).len(), 1, "the last batch of an epoch is kept");
}

#[cfg(feature = "torch")]
mod loader {
    use scrimp::config::sampling::Sampling;
    use scrimp::data::augment::Resample;
    use scrimp::data::batch::Batch;
    use scrimp::data::held_out::HeldOut;
    use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
    use scrimp::data::loader::{Loader, LoaderPlan};
    use scrimp::data::stream::ANNOTATED;
    use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE};
    use std::sync::Arc;
    use tch::{Kind, Tensor};

    fn phantom() -> Arc<Dataset> {
        let difficulty = Difficulty::Easy;
        let phantom = Phantom { cases: 5, slices: 3, size: 40, difficulty, seed: 3 };
        Arc::new(generate(&phantom).unwrap())
    }

    fn plan() -> LoaderPlan {
        LoaderPlan {
            fold: 2,
            annotation: SCRIBBLE.into(),
            batch_size: 5,
            drop_last: false,
            streams: ANNOTATED,
            sampling: Sampling::Slices { size: 32 },
            augment: Resample::Reference,
            outside: scrimp::data::IGNORE,
            seed: 7,
        }
    }

    fn assert_equal(actual: &Batch, expected: &Batch) {
        assert_eq!(actual.global_size, expected.global_size);
        assert_eq!(actual.main().items, expected.main().items);
        assert_eq!(actual.main().positions, expected.main().positions);
        assert_eq!(actual.main().image, expected.main().image);
        assert_eq!(actual.main().annotation, expected.main().annotation);
    }

    #[test]
    fn any_number_of_ranks_sees_the_batch_of_one() {
        let resized = [Resample::Reference, Resample::Bilinear, Resample::None];
        let resized = resized.map(|augment| (augment, Sampling::Slices { size: 32 }));
        let cropped = [(Resample::FullRotation, Sampling::Cropped { size: 36 })];
        for (augment, sampling) in resized.into_iter().chain(cropped) {
            let (dataset, plan) = (phantom(), LoaderPlan { augment, sampling, ..plan() });
            let mut alone = Loader::new(&dataset, plan.clone(), 0, 1).unwrap();
            for ranks in 2..=5 {
                let mut loaders: Vec<Loader> = (0..ranks)
                    .map(|rank| Loader::new(&dataset, plan.clone(), rank, ranks).unwrap())
                    .collect();
                // Step 3 ends the epoch with 2 of 12 slices: with 5 ranks some have none.
                for step in 1..=4 {
                    let whole = alone.batch(step).unwrap();
                    let parts: Vec<Batch> =
                        loaders.iter_mut().map(|loader| loader.batch(step).unwrap()).collect();
                    let images: Vec<&Tensor> = parts.iter().map(|p| &p.main().image).collect();
                    let labels: Vec<&Tensor> = parts.iter().map(|p| &p.main().annotation).collect();
                    assert_eq!(Tensor::cat(&images, 0), whole.main().image);
                    assert_eq!(Tensor::cat(&labels, 0), whole.main().annotation);
                    let positions: Vec<u64> =
                        parts.iter().flat_map(|p| p.main().positions.clone()).collect();
                    assert_eq!(positions, whole.main().positions);
                    assert!(parts.iter().all(|part| part.global_size == whole.global_size));
                }
            }
        }
    }

    #[test]
    fn micro_batches_are_the_batch_in_parts_on_any_number_of_ranks() {
        let dataset = phantom();
        let mut whole = Loader::new(&dataset, plan(), 0, 1).unwrap();
        for (micro_batches, ranks) in [(2, 1), (2, 2), (5, 1), (3, 3)] {
            let loader = |rank| Loader::new(&dataset, plan(), rank, ranks).unwrap();
            let loaders = (0..ranks).map(|rank| loader(rank).in_micro_batches(micro_batches));
            let mut loaders: Vec<Loader> = loaders.collect();
            // Step 3 ends the epoch with 2 of 12 slices: then there are 2 parts at most.
            for step in 1..=4 {
                let of_ranks: Vec<Vec<Batch>> =
                    loaders.iter_mut().map(|loader| loader.micro_batches(step).unwrap()).collect();
                let expected = whole.batch(step).unwrap();
                let parts = micro_batches.min(expected.global_size);
                assert!(of_ranks.iter().all(|batches| batches.len() == parts));
                let in_order: Vec<&Batch> = (0..parts)
                    .flat_map(|part| of_ranks.iter().map(move |batches| &batches[part]))
                    .collect();
                let images: Vec<&Tensor> = in_order.iter().map(|b| &b.main().image).collect();
                assert_eq!(Tensor::cat(&images, 0), expected.main().image);
                let positions = in_order.iter().flat_map(|b| b.main().positions.clone());
                assert!(positions.eq(expected.main().positions.iter().copied()));
                let sizes: usize = of_ranks[0].iter().map(|batch| batch.global_size).sum();
                assert_eq!(sizes, expected.global_size);
            }
        }
    }

    #[test]
    fn preparing_ahead_and_jumping_change_nothing() {
        let dataset = phantom();
        let fresh = |step| Loader::new(&dataset, plan(), 0, 1).unwrap().batch(step).unwrap();
        for threads in 1..=3 {
            let mut loader = Loader::new(&dataset, plan(), 0, 1).unwrap().prepared_by(threads);
            for step in [1, 2, 3, 4, 5, 9, 10, 2, 3, 3] {
                assert_equal(&loader.batch(step).unwrap(), &fresh(step));
            }
        }
    }

    #[test]
    fn samples_have_the_promised_form_and_never_come_from_the_held_out_fold() {
        let dataset = phantom();
        let mut loader = Loader::new(&dataset, plan(), 0, 1).unwrap();
        let mut ignored = 0.0;
        for step in 1..=3 {
            let batch = loader.batch(step).unwrap();
            let samples = batch.main();
            let count = samples.items.len() as i64;
            assert_eq!(samples.image.size(), [count, 1, 32, 32]);
            assert_eq!(samples.image.kind(), Kind::Float);
            assert_eq!(samples.annotation.size(), [count, 32, 32]);
            assert_eq!(samples.annotation.kind(), Kind::Uint8);
            assert!(samples.image.min().double_value(&[]) >= 0.0);
            assert!(samples.image.max().double_value(&[]) <= 1.0);
            let known =
                samples.annotation.le(3).logical_or(&samples.annotation.eq(i64::from(IGNORE)));
            assert!(bool::try_from(known.all()).unwrap());
            let share = samples.annotation.eq(i64::from(IGNORE)).to_kind(Kind::Double);
            ignored += share.mean(Kind::Double).double_value(&[]) / 3.0;
            assert!(samples.items.iter().all(|item| dataset.cases[item.case].fold != 2));
        }
        assert!(ignored > 0.9, "the batch holds scribbles, not the dense truth: {ignored}");
    }

    #[test]
    fn fold_0_holds_nothing_out() {
        let plan = LoaderPlan { fold: 0, ..plan() };
        assert_eq!(Loader::new(&phantom(), plan, 0, 1).unwrap().order().slice_count, 15);
    }

    fn refusal(change: impl Fn(&mut LoaderPlan), dataset: Dataset, ranks: usize) -> String {
        let mut plan = plan();
        change(&mut plan);
        match Loader::new(&Arc::new(dataset), plan, 0, ranks) {
            Ok(_) => panic!("accepted"),
            Err(failure) => failure.message().to_string(),
        }
    }

    #[test]
    fn plans_that_cannot_work_are_refused() {
        let dataset = || Dataset::clone(&phantom());
        assert_eq!(
            refusal(|plan| plan.annotation = "points".into(), dataset(), 1),
            "case `phantom0001` has no annotation `points`, only [\"dense\", \"scribble\"]"
        );
        assert_eq!(
            refusal(|plan| plan.fold = 6, dataset(), 1),
            "fold 6 of `phantom` holds out no cases, expected one of {1, 2, 3, 4, 5}"
        );
        assert_eq!(
            refusal(|_| (), dataset(), 6),
            "a batch of 5 cannot be split over 6 ranks, expected at least one sample for each"
        );
        let mut one = dataset();
        one.cases.retain(|case| case.fold == 2);
        assert_eq!(
            refusal(|_| (), one, 1),
            "fold 2 holds out every case of `phantom`, expected some to train on"
        );
        let drop_all = |plan: &mut LoaderPlan| (plan.drop_last, plan.batch_size) = (true, 13);
        assert_eq!(
            refusal(drop_all, dataset(), 1),
            "there is no full batch of 13 in 12 training slices"
        );
    }

    #[test]
    fn a_volume_goes_to_the_network_and_back() {
        let dataset = phantom();
        let volumes = HeldOut::cases(&dataset, 2).unwrap();
        let [volume] = volumes[..] else { panic!("{volumes:?}") };
        assert_eq!(volume.name(), "phantom0002");
        let input = |size| -> Vec<f32> {
            (0..3)
                .flat_map(|slice| scrimp::data::resized_slice(volume.scan(), slice, size, false))
                .collect()
        };
        assert_eq!(input(48).len(), 3 * 48 * 48);
        assert_eq!(input(40), volume.scan().voxels);
        // To twice as many pixels less one and back, every pixel of the truth returns.
        let case = &dataset.cases[1];
        let large: Vec<u8> = (0..3)
            .flat_map(|slice| {
                let truth = case.annotation_slice(DENSE, slice).unwrap();
                scrimp::data::augment::zoom_labels(truth, [40, 40], [79, 79])
            })
            .collect();
        assert_eq!(&*volume.enlarge(&large, [79; 2]), volume.truth());
    }
}
