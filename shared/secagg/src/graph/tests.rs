use std::collections::BTreeSet;

use super::*;

fn seed(n: u8) -> [u8; 32] {
    [n; 32]
}

#[test]
fn neighbours_are_mutual_and_as_many_as_the_degree_says() {
    for sites in [2, 3, 32, 33, 64, 65, 100, 200, 513] {
        let graph = Graph::new(seed(3), sites);
        for a in (0..sites as u16).map(Member) {
            let closed = graph.closed_neighbourhood(a);
            assert_eq!(closed.iter().collect::<BTreeSet<_>>().len(), graph.degree() + 1);
            assert!(closed.contains(&a) && closed.is_sorted());
            for b in (0..sites as u16).map(Member).filter(|&b| b != a) {
                assert_eq!(graph.adjacent(a, b), closed.contains(&b));
                assert_eq!(graph.adjacent(a, b), graph.adjacent(b, a));
            }
        }
    }
    assert_eq!(Graph::new(seed(1), 32).degree(), 31);
    assert_eq!(Graph::new(seed(1), 33).degree(), 24);
}

#[test]
fn the_seed_alone_decides_and_each_order_is_as_likely() {
    assert_eq!(Graph::new(seed(1), 100), Graph::new(seed(1), 100));
    assert_ne!(Graph::new(seed(1), 100), Graph::new(seed(2), 100));
    // 6 orders of 3 over 6000 seeds: chi-square with 5 degrees of freedom, 25.7 is exceeded once in 10,000.
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..6000_u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        *counts.entry(Graph::new(seed, 3).ring).or_insert(0_i32) += 1;
    }
    let chi: f64 = counts.values().map(|&n| f64::from(n - 1000).powi(2) / 1000.0).sum();
    assert!(counts.len() == 6 && chi < 25.7, "{chi} {counts:?}");
}

/// The three bounds of the module's text, for every number of sites.
#[test]
fn the_degrees_keep_what_the_text_says() {
    let logs = LogFactorials::new(MAX_SITES);
    for sites in FULL_GRAPH + 1..=MAX_SITES {
        let (k, n) = (degree(sites), degree(sites) + 1);
        let (t, tenth, all) = (quorum(n), sites.div_ceil(10), sites as f64);
        assert!(k % 2 == 0 && k < sites);
        let opened = all * logs.tail(sites - 1, tenth, k, t);
        let lost = all * logs.tail(sites - 1, tenth, k, k - t + 1);
        let removed = 2 * tenth;
        let apart = if k > removed { 0.0 } else { all * all / 2.0 * logs.all_of(sites, removed, k) };
        assert!(opened <= 2_f64.powi(-40), "{sites}: {opened:e}");
        assert!(apart <= 2_f64.powi(-40), "{sites}: {apart:e}");
        assert!(lost <= 2_f64.powi(-20), "{sites}: {lost:e}");
    }
}

#[test]
fn a_degree_one_step_lower_would_not_do() {
    let logs = LogFactorials::new(MAX_SITES);
    let mut lower = FULL_GRAPH;
    for (up_to, k) in DEGREES {
        let (k, n) = (k - 2, k - 1);
        let fails = (lower + 1..=up_to).any(|sites| {
            let (t, tenth, all) = (quorum(n), sites.div_ceil(10), sites as f64);
            let apart = all * all / 2.0 * logs.all_of(sites, 2 * tenth, k);
            all * logs.tail(sites - 1, tenth, k, k - t + 1) > 2_f64.powi(-20)
                || all * logs.tail(sites - 1, tenth, k, t) > 2_f64.powi(-40)
                || (k <= 2 * tenth && apart > 2_f64.powi(-40))
        });
        assert!(fails, "{up_to}");
        lower = up_to;
    }
}

/// Every way a coordinator can cut out a stretch of the ring leaves an end that needs more colluders than tolerated.
#[test]
fn the_end_of_a_cut_cannot_be_opened() {
    for sites in [33, 100, 500, 1000] {
        let graph = Graph::new(seed(5), sites);
        let gap: BTreeSet<Member> = graph.ring[..graph.degree() / 2].iter().copied().collect();
        let end = graph.ring[graph.degree() / 2];
        let left = graph.closed_neighbourhood(end).iter().filter(|m| !gap.contains(m)).count();
        assert!(left + graph.tolerated_colluders() < graph.share_threshold(), "{sites}");
        assert!(left + graph.tolerated_colluders() + 1 >= graph.share_threshold(), "{sites}");
    }
    assert_eq!(Graph::new(seed(5), 100).tolerated_colluders(), 5);
}

struct LogFactorials(Vec<f64>);

impl LogFactorials {
    fn new(most: usize) -> Self {
        let mut logs = vec![0.0];
        (1..=most).for_each(|n| logs.push(logs[n - 1] + (n as f64).ln()));
        Self(logs)
    }

    fn choose(&self, n: usize, k: usize) -> f64 {
        self.0[n] - self.0[k] - self.0[n - k]
    }

    /// Probability that `draws` of `total`, `marked` of them marked, have at least `least` marked.
    fn tail(&self, total: usize, marked: usize, draws: usize, least: usize) -> f64 {
        (least.max((draws + marked).saturating_sub(total))..=marked.min(draws))
            .map(|j| {
                self.choose(marked, j) + self.choose(total - marked, draws - j) - self.choose(total, draws)
            })
            .map(f64::exp)
            .sum()
    }

    /// Probability that `places` given places of `total` are all among the `removed`.
    fn all_of(&self, total: usize, removed: usize, places: usize) -> f64 {
        if places > removed {
            return 0.0;
        }
        (self.choose(total - places, removed - places) - self.choose(total, removed)).exp()
    }
}
