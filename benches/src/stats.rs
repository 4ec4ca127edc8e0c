//! The few statistics the tables need.

/// The median; `NaN` for no values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The least value; infinite for no values.
#[must_use]
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[9.0, 1.0, 5.0]).to_bits(), 5.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn least_of_several() {
        assert_eq!(least(&[4.0, -1.0, 2.0]).to_bits(), (-1.0_f64).to_bits());
    }
}
