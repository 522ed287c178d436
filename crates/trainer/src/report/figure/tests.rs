//! Figures of made-up runs.

use super::*;

fn group(name: &str, x: Option<f64>, results: &[f64]) -> Group {
    Group { name: name.into(), x, results: results.to_vec(), remark: String::new() }
}

fn figure(groups: Vec<Group>, x: Option<(String, bool)>) -> Figure {
    let references = vec![("random backbone".to_string(), 0.25)];
    Figure { title: "A <title>".into(), y: "20-NN accuracy".into(), percent: true, x, groups, references }
}

#[test]
fn means_and_deviations_are_those_of_samples() {
    let two = group("a", None, &[0.2, 0.4]);
    assert!((two.mean().unwrap_or(0.0) - 0.3).abs() < 1e-12);
    assert!((two.deviation().unwrap_or(0.0) - 0.02f64.sqrt()).abs() < 1e-12);
    assert_eq!((group("b", None, &[]).mean(), group("b", None, &[1.0]).deviation()), (None, None));
}

#[test]
fn bars_show_names_numbers_and_remarks() {
    let mut ill = group("no stop-gradient", None, &[0.1, 0.12]);
    ill.remark = "collapsed".into();
    let none = Group { remark: "stopped".into(), ..group("nothing", None, &[]) };
    let svg = figure(vec![group("as published", None, &[0.5, 0.6]), ill, none], None).svg();
    for text in
        ["as published", "55.0 % ± 7.1 %", "  collapsed", ">stopped<", "A &lt;title&gt;", "random backbone 25.0 %"]
    {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert_eq!(svg.matches("class=\"run\"").count(), 4);
    assert_eq!(svg.matches("<rect class=\"bar").count(), 2);
}

#[test]
fn lines_have_the_runs_own_ticks_and_a_place_for_zero() {
    let groups = [0.0, 1e-3, 1e-2, 1.0].map(|x| group("lambda", Some(x), &[0.4 + x / 10.0, 0.41]));
    let svg = figure(groups.to_vec(), Some(("method.lambda".into(), true))).svg();
    for text in [">0<", ">0.001<", ">0.01<", ">1<", "method.lambda", "class=\"line\""] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    let scale = XScale::new(&[0.0, 1e-3, 1.0], true);
    assert!(scale.place(0.0) < scale.place(1e-3) && scale.place(1e-3) < scale.place(1.0));
    assert!((XScale::new(&[5.0], false).place(5.0) - 0.5).abs() < 1e-12);
}

#[test]
fn odd_values_draw_and_never_panic() {
    for x in [None, Some(("x".to_string(), true)), Some(("x".to_string(), false))] {
        for results in [vec![], vec![f64::NAN], vec![-1e300, 1e300], vec![0.0; 5]] {
            for at in [None, Some(f64::NAN), Some(-3.0), Some(0.0), Some(f64::MAX)] {
                let svg = figure(vec![group("a", at, &results), group("b", Some(1.0), &[0.5])], x.clone()).svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{x:?} {at:?} {results:?}: {svg}");
            }
        }
    }
}
