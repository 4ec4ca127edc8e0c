use proptest::prelude::*;

use super::*;
use crate::semantic::vector::normalised;

const LONG: Moment = Moment::MAX;

fn key(n: u8) -> CacheKey {
    CacheKey::from([n; 32])
}

/// One sum, in the order in which the numbers stand, and of twice the precision.
fn plain_cosine(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

fn vectors() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<f32>)> {
    (1_usize..70).prop_flat_map(|length| {
        let vector = prop::collection::vec(-1.0_f32..1.0, length);
        (prop::collection::vec(vector.clone(), 0..40), vector)
    })
}

proptest! {
    #[test]
    fn the_nearest_is_the_nearest((kept, asked) in vectors()) {
        let (kept, asked): (Vec<_>, _) =
            (kept.into_iter().filter_map(normalised).collect(), normalised(asked));
        prop_assume!(asked.is_some());
        let asked = asked.unwrap_or_default();
        let mut index = Index::new(100);
        for (n, vector) in (0..).zip(&kept) {
            index.insert(key(0), vector, key(n), LONG);
        }
        let best = kept.iter().map(|kept| plain_cosine(&asked, kept)).reduce(f64::max);
        match (index.nearest(key(0), &asked, 0), best) {
            (None, None) => {}
            (Some(found), Some(best)) => {
                let at = usize::from(found.key.as_bytes()[0]);
                // Its own place has the similarity that it says, and none has more but for rounding.
                let own = plain_cosine(&asked, &kept[at]);
                prop_assert!((own - f64::from(found.similarity)).abs() < 1e-5);
                prop_assert!(best - own < 1e-5, "{best} is nearer than {own}");
            }
            (found, best) => prop_assert!(false, "{found:?}, but {best:?}"),
        }
    }

    /// Beside a list in the order of use.
    #[test]
    fn what_was_used_least_recently_goes(
        steps in prop::collection::vec((0_u8..3, 0_u8..3, 0_u8..12), 0..200),
        most in 1_usize..9,
    ) {
        let mut index = Index::new(most);
        let mut model: Vec<(u8, u8)> = Vec::new();
        for (what, partition, n) in steps {
            let place = (key(partition), 2);
            let known = model.iter().position(|known| *known == (partition, n));
            match what {
                0 => {
                    if let Some(at) = known {
                        model.remove(at);
                    }
                    let evicted = usize::from(model.len() == most);
                    model.drain(..evicted);
                    model.push((partition, n));
                    let angle = f32::from(n) * 0.1;
                    let vector = [angle.cos(), angle.sin()];
                    let went = index.insert(key(partition), &vector, key(n), LONG);
                    prop_assert_eq!(went, evicted);
                }
                1 => {
                    if let Some(at) = known {
                        let row = model.remove(at);
                        model.push(row);
                    }
                    index.touch(place, &key(n));
                }
                _ => {
                    if let Some(at) = known {
                        model.remove(at);
                    }
                    index.remove(place, &key(n));
                }
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.numbers, 2 * model.len());
            for (partition, n) in &model {
                let angle = f32::from(*n) * 0.1;
                let found = index.nearest(key(*partition), &[angle.cos(), angle.sin()], 0);
                prop_assert_eq!(found.map(|found| found.key), Some(key(*n)));
            }
        }
        for partition in 0..3 {
            let there = model.iter().any(|(other, _)| *other == partition);
            prop_assert_eq!(index.partitions.contains_key(&(key(partition), 2)), there);
        }
    }
}

#[test]
fn what_is_old_hides_nothing() {
    let mut index = Index::new(9);
    index.insert(key(0), &[1.0, 0.0], key(1), 10);
    index.insert(key(0), &[0.8, 0.6], key(2), 20);
    let nearest = |now| index.nearest(key(0), &[1.0, 0.0], now).map(|near| near.key);
    assert_eq!(nearest(9), Some(key(1)));
    assert_eq!(nearest(10), Some(key(2)));
    assert_eq!(nearest(20), None);
}

#[test]
fn vectors_of_other_lengths_are_apart() {
    let mut index = Index::new(9);
    index.insert(key(0), &[1.0, 0.0], key(1), LONG);
    assert_eq!(index.nearest(key(0), &[1.0], 0), None);
    assert_eq!(index.nearest(key(1), &[1.0, 0.0], 0), None);
}
