//! Vectors of three numbers, as places and directions are.
//!
//! Knows neither grids nor files.

/// The product of two vectors; 1 where both have length 1 and point into the same direction.
pub(super) fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The vector that stands upright on two others.
pub(super) fn cross(a: &[f64; 3], b: &[f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// The volume between three vectors, with the sign of their order.
pub(super) fn determinant([a, b, c]: &[[f64; 3]; 3]) -> f64 {
    dot(a, &cross(b, c))
}

/// How far two places lie from each other.
pub(super) fn distance(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

/// How long a vector is.
pub(super) fn length(vector: &[f64; 3]) -> f64 {
    dot(vector, vector).sqrt()
}

/// The vector of length 1 in this direction, or of 0 where it has none.
pub(super) fn unit(vector: [f64; 3]) -> [f64; 3] {
    let length = length(&vector).max(f64::MIN_POSITIVE);
    vector.map(|part| part / length)
}

/// Three directions of which one that is missing, a vector of 0, stands upright on the others.
pub(super) fn completed(mut directions: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    for axis in 0..3 {
        if length(&directions[axis]) <= 0.0 {
            let [one, other] = [directions[(axis + 1) % 3], directions[(axis + 2) % 3]];
            directions[axis] = unit(cross(&one, &other));
        }
    }
    directions
}

/// How often each of three vectors is needed to reach a place; not finite where they lie in a plane.
pub(super) fn coordinates(vectors: &[[f64; 3]; 3], place: &[f64; 3]) -> [f64; 3] {
    let whole = determinant(vectors);
    std::array::from_fn(|axis| {
        let mut others = *vectors;
        others[axis] = *place;
        determinant(&others) / whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_lead_to_the_place() {
        let vectors = [[0.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 0.5, 4.0]];
        let found = coordinates(&vectors, &[6.0, 9.0, 6.0]);
        let reached: [f64; 3] =
            std::array::from_fn(|row| (0..3).map(|axis| found[axis] * vectors[axis][row]).sum());
        assert!(distance(&reached, &[6.0, 9.0, 6.0]) < 1e-12, "{found:?}");
        assert!(coordinates(&[vectors[0]; 3], &[1.0; 3]).iter().all(|part| !part.is_finite()));
    }

    #[test]
    fn a_missing_direction_stands_upright_on_the_others() {
        let found = completed([[0.0; 3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        assert!(distance(&found[0], &[1.0, 0.0, 0.0]) < 1e-12);
    }
}
