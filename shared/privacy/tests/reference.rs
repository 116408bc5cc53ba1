//! The accountants beside public ones: `data/dp_reference.csv` (Opacus 1.5 and Google's dp-accounting; add/remove, Poisson
//! sampling), and the closed form of the plain Gaussian.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint's own exception does not see")]

use std::sync::LazyLock;

use sheaf_privacy::{
    Delta, Event, Rate, Sigma,
    accountant::{
        Adjacency::{self, AddRemove, ReplaceOne},
        Estimate::{self, Optimistic, Pessimistic},
        Pld, RdpCurve, rdp,
    },
};

struct Row {
    tag: String,
    event: Event,
    delta: Delta,
    values: csv::StringRecord,
}

impl Row {
    fn get(&self, column: &str) -> Option<f64> {
        static HEAD: LazyLock<csv::StringRecord> = LazyLock::new(|| reader().headers().unwrap().clone());
        let index = HEAD.iter().position(|name| name == column).expect("a column of the file");
        self.values[index].parse().ok()
    }

    fn epsilon(&self, adjacency: Adjacency, estimate: Estimate) -> f64 {
        Pld::of(&[self.event], adjacency, estimate).epsilon(self.delta).unwrap().get()
    }
}

fn reader() -> csv::Reader<&'static [u8]> {
    csv::Reader::from_reader(&include_bytes!("data/dp_reference.csv")[..])
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = reader().into_records().map(|values| row(values.unwrap())).collect();
    assert_eq!(rows.len(), 31);
    rows
}

fn row(values: csv::StringRecord) -> Row {
    let number = |index: usize| values[index].parse::<f64>().unwrap();
    let event = Event::PoissonGaussian {
        rate: Rate::new(number(1)).unwrap(),
        sigma: Sigma::new(number(2)).unwrap(),
        steps: number(3) as u64,
    };
    Row { tag: values[0].to_owned(), event, delta: Delta::new(number(4)).unwrap(), values }
}

fn tolerance(reference: f64) -> f64 {
    f64::max(2e-3, 0.002 * reference)
}

#[test]
fn pld_agrees_and_is_never_below_the_lower_bounds() {
    let mut compared = 0;
    for row in rows() {
        let (low, high) = (row.epsilon(AddRemove, Optimistic), row.epsilon(AddRemove, Pessimistic));
        let reference = row.get("dpacc_pld").unwrap();
        let tag = &row.tag;
        assert!(low <= high, "{tag}: {low} {high}");
        if tag == "edge-tinyq" {
            // Each step's loss is a hundredth of the reference's grid: it is a bound from above only.
            assert!(high < reference, "{tag}: {high} {reference}");
        } else {
            assert!((high - reference).abs() <= tolerance(reference), "{tag}: {high} {reference}");
            compared += 1;
        }
        for lower in ["pld_lower", "prv_lower", "exact_gaussian"].iter().filter_map(|name| row.get(name)) {
            assert!(high >= lower - 1e-9, "{tag}: {high} {lower}");
        }
        for upper in ["opacus_prv", "exact_gaussian"].iter().filter_map(|name| row.get(name)) {
            assert!(low <= upper + 1e-9, "{tag}: {low} {upper}");
        }
        if let Some(reference) = row.get("pld_replace_one") {
            let replaced = row.epsilon(ReplaceOne, Pessimistic);
            assert!((replaced - reference).abs() <= tolerance(reference), "{tag}: {replaced} {reference}");
            assert!(row.epsilon(ReplaceOne, Optimistic) <= replaced, "{tag}");
        }
    }
    assert_eq!(compared, 30);
}

#[test]
fn without_sampling_the_closed_form_is_met() {
    let exact: Vec<_> = rows().into_iter().filter(|row| row.get("exact_gaussian").is_some()).collect();
    assert_eq!(exact.len(), 3);
    for row in exact {
        let (got, exact) = (row.epsilon(AddRemove, Pessimistic), row.get("exact_gaussian").unwrap());
        assert!((got - exact).abs() < 1e-6, "{}: {got} {exact}", row.tag);
    }
}

#[test]
fn rdp_agrees() {
    for row in rows() {
        let (got, order) = RdpCurve::of(&row.event).epsilon(row.delta).unwrap();
        let (got, reference) = (got.get(), row.get("opacus_rdp").unwrap());
        let tag = &row.tag;
        // The reference ends at order 63; higher ones can only help.
        assert!(got <= reference + 1e-6, "{tag}: {got} {reference}");
        if order <= 63.0 {
            assert!(
                (got - reference).abs() < 1e-6 && Some(order) == row.get("opacus_alpha"),
                "{tag}: {got} {reference}"
            );
        }
        let Some(other) = row.get("dpacc_rdp") else { continue };
        assert!(got <= other + 1e-6, "{tag}: {got} {other}");
        // In four rows the two references differ at the same fractional order. The integral (see the unit tests of
        // `rdp`) has the lower value, so the other is a bound from above there.
        if (reference - other).abs() < 1e-3 {
            assert!((got - other).abs() < 1e-3, "{tag}: {got} {other}");
        }
    }
}

/// (q, sigma, steps, RDP epsilon over whole orders, PLD epsilon to two digits), delta 1e-5.
const VECTORS: [(f64, f64, u64, f64, Option<f64>); 7] = [
    (0.01, 1.0, 1000, 2.1078, None),
    (0.032, 0.901, 157, 4.1579, Some(3.42)),
    (0.032, 1.2421, 157, 2.0035, Some(1.76)),
    (0.128, 2.11, 40, 2.0001, Some(1.79)),
    (0.064, 1.0771, 79, 4.0242, None),
    (64.0 / 3364.0, 0.5934, 158, 8.7821, Some(6.68)),
    (0.001, 0.5672, 1000, 3.1874, Some(1.89)),
];

#[test]
fn whole_orders_give_the_published_vectors() {
    let delta: f64 = 1e-5;
    for (q, sigma, steps, expected, pld) in VECTORS {
        let event =
            Event::PoissonGaussian { rate: Rate::new(q).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps };
        let curve = RdpCurve::of(&event);
        let whole = rdp::orders().iter().zip(curve.values()).filter(|(order, _)| order.fract() == 0.0);
        let bound = |(a, rdp): (&f64, &f64)| rdp + ((a - 1.0) / a).ln() - (delta.ln() + a.ln()) / (a - 1.0);
        let got = whole.map(bound).fold(f64::INFINITY, f64::min);
        assert!((got - expected).abs() < 1e-4, "{q} {sigma} {steps}: {got} {expected}");
        if let Some(expected) = pld {
            let got =
                Pld::of(&[event], AddRemove, Pessimistic).epsilon(Delta::new(delta).unwrap()).unwrap().get();
            assert!((got - expected).abs() < 6e-3, "{q} {sigma} {steps}: {got} {expected}");
        }
    }
}
