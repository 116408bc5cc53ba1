//! Label skew by Dirichlet draws, without the two traps of the usual code: proportions are kept as logarithms and scaled by
//! the largest one that may still count, so that their sum cannot be 0 however small alpha is; and sites that are too small
//! are filled from the largest one, which ends after `sites * min_rows` moves, instead of drawing again until luck.

use super::ClassRows;
use super::random::Random;

/// Spreads the rows; there are at least `sites * min_rows` training rows.
pub(super) fn split(
    classes: &[ClassRows],
    sites: usize,
    alpha: f64,
    min_rows: usize,
    random: &mut Random,
) -> Vec<Vec<usize>> {
    let total: usize = classes.iter().map(|class| class.train.len()).sum();
    let share = total as f64 / sites as f64;
    let mut train = vec![Vec::new(); sites];
    let mut test = vec![Vec::new(); sites];
    for class in classes {
        let logs: Vec<f64> = (0..sites).map(|_| random.ln_gamma(alpha)).collect();
        let open = |site: &usize| (train[*site].len() as f64) < share;
        // Where no rows are left to give, every site may be full: then only test rows are cut, by the plain draw.
        let any_open = (0..sites).any(|site| open(&site));
        let candidates: Vec<usize> = (0..sites).filter(|site| open(site) || !any_open).collect();
        let largest = candidates.iter().map(|&site| logs[site]).fold(f64::NEG_INFINITY, f64::max);
        let mut parts = vec![0.0; sites];
        for site in candidates {
            parts[site] = (logs[site] - largest).exp();
        }
        for (rows, into) in [(&class.train, &mut train), (&class.test, &mut test)] {
            let mut rows = rows.clone();
            random.shuffle(&mut rows);
            deal(&rows, &parts, into);
        }
    }
    fill(&mut train, min_rows);
    train.iter_mut().zip(test).for_each(|(rows, test)| rows.extend(test));
    train
}

/// Cuts rows in the given proportions, the largest of which is 1.
fn deal(rows: &[usize], parts: &[f64], into: &mut [Vec<usize>]) {
    let sum: f64 = parts.iter().sum();
    let last = parts.iter().rposition(|&part| part > 0.0).unwrap_or(0);
    let (mut reached, mut from) = (0.0, 0);
    for (site, part) in parts.iter().enumerate() {
        reached += part;
        // Rounding must not lose the last rows.
        let to = if site >= last {
            rows.len()
        } else {
            ((reached / sum * rows.len() as f64) as usize).clamp(from, rows.len())
        };
        into[site].extend_from_slice(&rows[from..to]);
        from = to;
    }
}

/// Moves rows from the largest site (the first of equals) to every site with fewer than `min_rows`.
fn fill(sites: &mut [Vec<usize>], min_rows: usize) {
    for site in 0..sites.len() {
        while sites[site].len() < min_rows {
            let largest = (0..sites.len()).max_by_key(|&at| (sites[at].len(), std::cmp::Reverse(at)));
            let Some(row) = largest.filter(|&at| sites[at].len() > min_rows).and_then(|at| sites[at].pop())
            else {
                return;
            };
            sites[site].push(row);
        }
    }
}
