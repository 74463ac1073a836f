//! Part `scaling`: one, two and four instances on one set of engines.

use anyhow::Result;
use tests::measure::{Reach, Row, alternate, note};

use super::Bench;
use super::load::READINGS;

const ROUNDS: usize = 3;
const GATEWAYS: usize = 60;
const BATCHES: usize = 12;
const COUNTS: [usize; 3] = [1, 2, 4];

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let mut rates: [Vec<f64>; 3] = Default::default();
    let bench = std::cell::RefCell::new(bench);
    let mut drain = |place: usize, rates: &mut Vec<f64>| {
        let bench = &mut **bench.borrow_mut();
        let made = bench.loads.next(GATEWAYS, BATCHES)?;
        let run = bench.drain(COUNTS[place], &made)?;
        rates.push(run.readings_per_s);
        anyhow::Ok(run.cpu_us)
    };
    let [of_one, of_two, of_four] = &mut rates;
    let drain = std::cell::RefCell::new(&mut drain);
    let [one, two, four] = alternate(
        ROUNDS,
        [&mut || (drain.borrow_mut())(0, of_one), &mut || (drain.borrow_mut())(1, of_two), &mut || {
            (drain.borrow_mut())(2, of_four)
        }],
    )?;
    let rate = |rates: &[f64]| tests::measure::Samples::new(rates[1..].to_vec()).map(|rates| rates.median());
    let rates = rates.iter().map(|rates| rate(rates)).collect::<Result<Vec<f64>>>()?;
    let beside = format!("{:.0} readings/s", rates[0]);
    let unit = "µs per reading";
    Row { work: "one instance: CPU", figures: &one, unit, reach: Reach::None, beside }.print()?;
    for (work, figures, rate) in [("two instances", &two, rates[1]), ("four instances", &four, rates[2])] {
        let work = format!("{work}: CPU per reading over that of one");
        let beside = format!("{:.2} µs, {rate:.0} readings/s", figures.median());
        Row { work: &work, figures: &figures.over(&one), unit: "x", reach: Reach::AtMost(1.1), beside }.print()?;
    }
    Ok(note(&format!(
        "scaling: {} readings a round, four partitions, all instances on this machine; CPU of all instances together.",
        GATEWAYS * BATCHES * READINGS
    ))?)
}
