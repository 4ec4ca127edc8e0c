//! Vectors of length one.

/// Sums kept side by side, which the compiler puts into the registers for several numbers at once.
const SUMS: usize = 16;

/// A vector of length one, or none where `vector` has no direction: it is empty, zero, or has
/// something in it that is not a finite number.
pub(super) fn normalised(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let squares = vector
        .iter()
        .map(|part| f64::from(*part) * f64::from(*part));
    let length = squares.sum::<f64>().sqrt();
    if !length.is_finite() || length <= f64::from(f32::MIN_POSITIVE) {
        return None;
    }
    for part in &mut vector {
        #[expect(clippy::cast_possible_truncation, reason = "it is at most one")]
        let scaled = (f64::from(*part) / length) as f32;
        *part = scaled;
    }
    Some(vector)
}

/// The cosine of the angle between two vectors of length one and as many numbers.
#[inline]
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; SUMS];
    let (a_blocks, b_blocks) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    let rest: f32 = { a_blocks.remainder().iter() }
        .zip(b_blocks.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for lane in 0..SUMS {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_direction_is_no_vector() {
        for vector in [
            vec![],
            vec![0.0; 3],
            vec![1.0, f32::NAN],
            vec![f32::INFINITY],
        ] {
            assert_eq!(normalised(vector.clone()), None, "{vector:?}");
        }
        assert_eq!(normalised(vec![3.0, 4.0]), Some(vec![0.6, 0.8]));
        // Squares that are too large for the type do not make it endless.
        assert_eq!(normalised(vec![f32::MAX, 0.0]), Some(vec![1.0, 0.0]));
    }
}
