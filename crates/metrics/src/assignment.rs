//! The assignment problem: one column for each row, at the highest total.

/// The column of each row of `gains` (rows of equal length, no more rows than columns), each column at most once, with the highest sum: Kuhn 1955
/// with potentials, after Jonker and Volgenant 1987. O(rows^2 columns).
pub(crate) fn best_assignment(gains: &[Vec<f64>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let (rows, columns) = (gains.len(), gains.first().map_or(0, Vec::len));
    let mut row_potential = vec![0.0; rows];
    let mut column_potential = vec![0.0; columns];
    let mut row_of = vec![NONE; columns];
    for start in 0..rows {
        // The shortest augmenting path from this row, by reduced costs.
        let mut distance = vec![f64::INFINITY; columns];
        let mut before = vec![NONE; columns];
        let mut visited = vec![false; columns];
        let (mut row, mut at, mut length) = (start, NONE, 0.0);
        loop {
            let mut nearest = NONE;
            for column in (0..columns).filter(|column| !visited[*column]) {
                let reduced = -gains[row][column] - row_potential[row] - column_potential[column] + length;
                if reduced < distance[column] {
                    distance[column] = reduced;
                    before[column] = at;
                }
                if nearest == NONE || distance[column] < distance[nearest] {
                    nearest = column;
                }
            }
            length = distance[nearest];
            visited[nearest] = true;
            at = nearest;
            if row_of[at] == NONE {
                break;
            }
            row = row_of[at];
        }
        for column in 0..columns {
            if visited[column] {
                let change = length - distance[column];
                column_potential[column] -= change;
                if row_of[column] != NONE {
                    row_potential[row_of[column]] += change;
                }
            }
        }
        row_potential[start] += length;
        // Along the path every column takes the row of the one before.
        while before[at] != NONE {
            row_of[at] = row_of[before[at]];
            at = before[at];
        }
        row_of[at] = start;
    }
    let mut column_of = vec![0; rows];
    for (column, row) in row_of.into_iter().enumerate().filter(|(_, row)| *row != NONE) {
        column_of[row] = column;
    }
    column_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_random::Stream;

    /// Every way to give each row a column of its own.
    fn highest(gains: &[Vec<f64>], row: usize, taken: &mut Vec<usize>) -> f64 {
        if row == gains.len() {
            return 0.0;
        }
        let mut best = f64::NEG_INFINITY;
        for column in 0..gains[0].len() {
            if !taken.contains(&column) {
                taken.push(column);
                best = best.max(gains[row][column] + highest(gains, row + 1, taken));
                taken.pop();
            }
        }
        best
    }

    #[test]
    fn the_total_is_the_highest_of_all_assignments() {
        let mut stream = Stream::keyed(1, &[]);
        for (rows, columns) in [(1, 1), (1, 4), (3, 3), (4, 6), (6, 6), (7, 7)] {
            for _ in 0..30 {
                let gains: Vec<Vec<f64>> = (0..rows)
                    .map(|_| (0..columns).map(|_| (stream.uniform() * 20.0).floor() - 5.0).collect())
                    .collect();
                let found = best_assignment(&gains);
                let mut different = found.clone();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), rows);
                let total: f64 = found.iter().enumerate().map(|(row, column)| gains[row][*column]).sum();
                assert_eq!(total, highest(&gains, 0, &mut Vec::new()), "{gains:?}");
            }
        }
        assert!(best_assignment(&[]).is_empty());
    }
}
