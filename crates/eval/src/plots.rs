//! Bar charts as in the paper's figures: a group a set of prompts, a bar a method, whiskers for the
//! intervals.
//!
//! One size, one look: that of the line charts (`excite_diffusion::picture::chart`). Bars stand on
//! zero. Not here: the numbers.

use excite_diffusion::picture::Picture;
use excite_diffusion::picture::chart::{COLOURS, number, round_step};
use excite_diffusion::picture::draw::{
    Alignment, BODY, DARK, MUTED, RULE, TITLE, WHITE, cut, line_height, rectangle, text,
    text_width, wrap,
};

use crate::report::{ALL, Metric, Report, Subset, label};
use crate::statistics::Interval;

/// A chart of a report.
#[derive(Debug, Clone)]
pub struct Figure {
    /// For a file: `full`, `full_drop`, ...
    pub name: String,
    /// 760 by 380 pixels.
    pub picture: Picture,
}

/// The method that the others' drops are relative to, as in the paper.
const REFERENCE: &str = "attend_and_excite";

const WIDTH: i32 = 760;
const HEIGHT: i32 = 380;
const MARGIN: i32 = 16;
const LEGEND_LINE: i32 = 18;
const LEGEND_TEXT_MAX: i32 = 150;
/// Side of the square in the legend.
const SAMPLE: i32 = 11;
/// Of a group's room; the rest parts it from the next.
const GROUP_SHARE: f64 = 0.84;
const BAR_MAX: f64 = 48.;
const WHISKER: i32 = 7;

/// What is drawn.
#[derive(Debug, Clone, Default)]
struct Bars {
    title: String,
    /// Over the y axis.
    y_label: String,
    /// Name and colour: a method has the same in all charts of a report.
    methods: Vec<(String, [u8; 3])>,
    /// A bar for each method, if it has one.
    groups: Vec<(String, Vec<Option<Bar>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bar {
    value: f64,
    /// Ends of the whisker.
    ends: Option<(f64, f64)>,
    decimals: usize,
}

/// All charts that the report has numbers for.
pub fn figures(report: &Report) -> Vec<Figure> {
    let subsets: Vec<&Subset> = report.subsets.iter().filter(|set| set.name != ALL).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in subsets.iter().flat_map(|set| set.methods.iter().map(|m| m.name.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let methods: Vec<_> = names.into_iter().zip(COLOURS.into_iter().cycle()).collect();
    let measured = [
        (Metric::Full, "Full prompt similarity", ""),
        (Metric::MinObject, "Minimum object similarity", ""),
        (Metric::TextText, "Text-text similarity", ""),
        (Metric::AllPresent, "Images that show all subjects", "%"),
    ];
    let measured = measured.into_iter().filter_map(|(metric, title, unit)| {
        let bar = |set: &Subset, method: &str| {
            let Interval { value, low, high } = set.estimate(method, metric)?.interval;
            let (times, decimals) = if unit == "%" { (100., 0) } else { (1., 3) };
            let ends = Some((times * low, times * high));
            Some(Bar { value: times * value, ends, decimals })
        };
        figure(metric.as_str().to_owned(), title.to_owned(), unit, &subsets, &methods, bar)
    });
    let others = methods.iter().copied().filter(|(method, _)| *method != REFERENCE);
    let others: Vec<_> = others.collect();
    let drops = [(Metric::Full, "full prompt"), (Metric::MinObject, "minimum object")];
    let drops = drops.into_iter().filter_map(|(metric, what)| {
        let bar = |set: &Subset, method: &str| {
            let of = |method: &str| Some(set.estimate(method, metric)?.interval.value);
            let best = of(REFERENCE).filter(|best| *best > 0.)?;
            Some(Bar { value: drop_of(of(method)?, best), ends: None, decimals: 1 })
        };
        let title = format!("Drop of {what} similarity relative to {}", label(REFERENCE));
        figure(format!("{}_drop", metric.as_str()), title, "%", &subsets, &others, bar)
    });
    measured.chain(drops).collect()
}

/// How far a value is below the best, percent of the best.
fn drop_of(value: f64, best: f64) -> f64 {
    100. * (best - value) / best
}

/// `None` if there is not one bar.
fn figure(
    name: String,
    title: String,
    y_label: &str,
    subsets: &[&Subset],
    methods: &[(&str, [u8; 3])],
    bar: impl Fn(&Subset, &str) -> Option<Bar>,
) -> Option<Figure> {
    let groups: Vec<_> = subsets
        .iter()
        .map(|set| {
            let bars: Vec<_> = methods.iter().map(|(method, _)| bar(set, method)).collect();
            (set.title().to_owned(), bars)
        })
        .collect();
    if groups.iter().all(|(_, bars)| bars.iter().all(Option::is_none)) {
        return None;
    }
    let methods = methods.iter().map(|(method, colour)| (label(method), *colour)).collect();
    let bars = Bars { title, y_label: y_label.to_owned(), methods, groups };
    Some(Figure { name, picture: bars.draw() })
}

impl Bars {
    fn draw(&self) -> Picture {
        let frame = Frame::new(self);
        let mut picture = Picture::filled(WIDTH as u32, HEIGHT as u32, WHITE);
        for (i, line) in frame.title.iter().enumerate() {
            let y = MARGIN - 4 + i as i32 * line_height(TITLE);
            text(&mut picture, TITLE, (MARGIN, y), line, DARK, Alignment::Left);
        }
        let y_label = cut(BODY, &self.y_label, frame.right - MARGIN);
        text(&mut picture, BODY, (MARGIN, frame.y_label), &y_label, MUTED, Alignment::Left);
        for tick in frame.low_tick..=frame.high_tick {
            let y = frame.y(tick as f64 * frame.step);
            let colour = if tick == 0 { MUTED } else { RULE };
            rectangle(&mut picture, (frame.left, y), (frame.right - frame.left, 1), colour);
            let label = number(tick, frame.step);
            let place = (frame.left - 6, y - 6);
            text(&mut picture, BODY, place, &label, MUTED, Alignment::Right);
        }
        for (group, (name, bars)) in self.groups.iter().enumerate() {
            for (method, (bar, (_, colour))) in bars.iter().zip(&self.methods).enumerate() {
                if let Some(bar) = bar.filter(|bar| bar.value.is_finite()) {
                    frame.bar(&mut picture, (group, method), bar, *colour);
                }
            }
            let width = frame.group_width() as i32;
            let place = (frame.left + frame.group_left(group) as i32 + width / 2, frame.bottom + 8);
            let name = cut(BODY, name, width);
            text(&mut picture, BODY, place, &name, DARK, Alignment::Center);
        }
        for (method, (name, colour)) in self.methods.iter().enumerate() {
            let y = frame.top + method as i32 * LEGEND_LINE;
            if y + LEGEND_LINE > frame.bottom {
                break;
            }
            rectangle(&mut picture, (frame.legend, y + 1), (SAMPLE, SAMPLE), *colour);
            let name = cut(BODY, name, LEGEND_TEXT_MAX);
            let place = (frame.legend + SAMPLE + 7, y);
            text(&mut picture, BODY, place, &name, DARK, Alignment::Left);
        }
        picture
    }
}

/// Where everything goes, pixels, and the scale.
struct Frame {
    title: Vec<String>,
    /// Top of the label of the y axis.
    y_label: i32,
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    legend: i32,
    groups: usize,
    methods: usize,
    /// Ticks of y are the multiples of `step` from `low_tick` to `high_tick`.
    step: f64,
    low_tick: i64,
    high_tick: i64,
}

impl Frame {
    fn new(bars: &Bars) -> Self {
        let shown = bars.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let ends = shown.flat_map(|bar| {
            let (low, high) = bar.ends.unwrap_or((bar.value, bar.value));
            [bar.value, low, high]
        });
        let finite = ends.filter(|value| value.is_finite());
        let (mut low, mut high) =
            finite.fold((0., 0.), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
        if low == high {
            (low, high) = (0., 1.);
        }
        let step = round_step((high - low) / 5.);
        let (low_tick, high_tick) =
            ((low / step + 1e-6).floor() as i64, (high / step - 1e-6).ceil() as i64);
        let ticks = (low_tick..=high_tick).map(|tick| text_width(BODY, &number(tick, step)));
        let labels = bars.methods.iter().map(|(name, _)| text_width(BODY, name)).max().unwrap_or(0);
        let legend = WIDTH - MARGIN - SAMPLE - 7 - labels.min(LEGEND_TEXT_MAX);
        let title = wrap(TITLE, &bars.title, WIDTH - 2 * MARGIN, 2);
        let y_label = MARGIN + title.len() as i32 * line_height(TITLE);
        Self {
            y_label,
            left: MARGIN + ticks.max().unwrap_or(0) + 6,
            right: legend - MARGIN,
            // A value stands over its bar, also over the highest.
            top: y_label + 2 * line_height(BODY),
            bottom: HEIGHT - MARGIN - 22,
            legend,
            groups: bars.groups.len().max(1),
            methods: bars.methods.len().max(1),
            title,
            step,
            low_tick,
            high_tick,
        }
    }

    fn y(&self, value: f64) -> i32 {
        let (low, high) = (self.low_tick as f64 * self.step, self.high_tick as f64 * self.step);
        let height = f64::from(self.bottom - self.top);
        (f64::from(self.bottom) - height * (value - low) / (high - low)).round() as i32
    }

    fn group_width(&self) -> f64 {
        f64::from(self.right - self.left) / self.groups as f64
    }

    /// From the left end of the axis.
    fn group_left(&self, group: usize) -> f64 {
        self.group_width() * group as f64
    }

    /// Left end and width of a bar.
    fn place(&self, (group, method): (usize, usize)) -> (i32, i32) {
        let width = (self.group_width() * GROUP_SHARE / self.methods as f64).min(BAR_MAX);
        let all = width * self.methods as f64;
        let first = self.group_left(group) + (self.group_width() - all) / 2.;
        let left = (first + width * method as f64).round() as i32;
        let right = (first + width * (method + 1) as f64).round() as i32;
        // A pixel between neighbours, if there is room for both.
        (self.left + left, (right - left - 1).max(1))
    }

    fn bar(&self, picture: &mut Picture, at: (usize, usize), bar: Bar, colour: [u8; 3]) {
        let (left, width) = self.place(at);
        let (zero, end) = (self.y(0.), self.y(bar.value));
        let (top, bottom) = (zero.min(end), zero.max(end));
        rectangle(picture, (left, top), (width, (bottom - top).max(1)), colour);
        let middle = left + width / 2;
        let mut over = top;
        if let Some((low, high)) = bar.ends.filter(|(low, high)| (high - low).is_finite()) {
            let (high, low) = (self.y(high), self.y(low));
            rectangle(picture, (middle, high), (1, low - high + 1), DARK);
            for y in [high, low] {
                let width = WHISKER.min(width);
                rectangle(picture, (middle - width / 2, y), (width, 1), DARK);
            }
            over = over.min(high);
        }
        let label = short(bar.value, bar.decimals);
        if text_width(BODY, &label) <= width + 1 {
            let place = (middle, over - line_height(BODY));
            // A line of the grid would strike it through.
            let ground = (middle - text_width(BODY, &label) / 2, place.1 + 1);
            rectangle(picture, ground, (text_width(BODY, &label), line_height(BODY) - 2), WHITE);
            text(picture, BODY, place, &label, DARK, Alignment::Center);
        }
    }
}

/// As in the paper's tables: `.332`.
fn short(value: f64, decimals: usize) -> String {
    let long = format!("{value:.decimals$}");
    match long.strip_prefix("0.").or_else(|| long.strip_prefix("-0.")) {
        Some(rest) if long.starts_with('-') => format!("-.{rest}"),
        Some(rest) => format!(".{rest}"),
        None => long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64, low: f64, high: f64) -> Option<Bar> {
        Some(Bar { value, ends: Some((low, high)), decimals: 3 })
    }

    fn bars(groups: Vec<Vec<Option<Bar>>>) -> Bars {
        let methods = (0..groups.first().map_or(0, Vec::len))
            .map(|i| (format!("method {i}"), COLOURS[i % 7]));
        let methods = methods.collect();
        let groups = groups.into_iter().map(|bars| ("group".to_owned(), bars)).collect();
        Bars { title: "A title".into(), y_label: String::new(), methods, groups }
    }

    /// Top and bottom of a colour in a column.
    fn reach(picture: &Picture, x: i32, colour: [u8; 3]) -> Option<(i32, i32)> {
        let is = |y: &i32| picture.get(x as u32, *y as u32) == colour;
        Some(((0..HEIGHT).find(is)?, (0..HEIGHT).rev().find(is)?))
    }

    #[test]
    fn bars_stand_on_zero_and_reach_their_values() {
        let chart = bars(vec![
            vec![bar(0.3, 0.2, 0.4), bar(0.15, 0.1, 0.2)],
            vec![None, bar(-0.1, -0.12, -0.05)],
        ]);
        let (picture, frame) = (chart.draw(), Frame::new(&chart));
        for (at, value, ends) in
            [((0, 0), 0.3, (0.2, 0.4)), ((0, 1), 0.15, (0.1, 0.2)), ((1, 1), -0.1, (-0.12, -0.05))]
        {
            let (left, width) = frame.place(at);
            let edges = [frame.y(0.), frame.y(value)];
            let want = (edges[0].min(edges[1]), edges[0].max(edges[1]) - 1);
            for x in [left, left + width - 1] {
                assert_eq!(reach(&picture, x, COLOURS[at.1]), Some(want), "{at:?} at {x}");
            }
            for end in [ends.0, ends.1] {
                for x in left + width / 2 - 3..=left + width / 2 + 3 {
                    let y = frame.y(end) as u32;
                    assert_eq!(picture.get(x as u32, y), DARK, "{at:?}: whisker at {end}");
                }
            }
        }
        let (left, width) = frame.place((1, 0));
        assert!((left..left + width).all(|x| reach(&picture, x, COLOURS[0]).is_none()), "no bar");
        // A fifth of the axis is a tick: 0.1.
        assert_eq!((frame.low_tick, frame.high_tick, frame.step), (-1, 2, 0.2));
        assert_eq!(frame.y(-0.2) - frame.y(0.), frame.y(0.) - frame.y(0.2));
    }

    #[test]
    fn any_bars_can_be_drawn_within_the_margins() {
        let many = bars(vec![vec![bar(0.5, 0.4, 0.6); 40]; 12]);
        let long = "an extraordinarily long text ".repeat(9);
        for (case, chart) in [
            ("nothing", Bars::default()),
            ("no bars", bars(vec![vec![None; 3]])),
            ("one", bars(vec![vec![bar(0.3, 0.2, 0.4)]])),
            ("zero", bars(vec![vec![bar(0., 0., 0.)]])),
            ("no numbers", bars(vec![vec![bar(f64::NAN, f64::NEG_INFINITY, 1.)]])),
            ("huge", bars(vec![vec![bar(1e300, -1e300, 1e300)]])),
            (
                "long",
                Bars {
                    title: long.clone(),
                    y_label: long.clone(),
                    methods: vec![(long, COLOURS[0]); 40],
                    ..many.clone()
                },
            ),
            ("many", many),
        ] {
            let picture = chart.draw();
            assert_eq!((picture.width(), picture.height()), (760, 380), "{case}");
            for y in 0..380 {
                let blank = |x: u32| picture.get(x, y) == WHITE;
                assert!((0..10).chain(750..760).all(blank), "{case}: margin at {y}");
            }
        }
    }

    #[test]
    fn a_report_has_the_charts_it_has_numbers_for() {
        let figures = figures(&crate::report::tests::report());
        let names: Vec<_> = figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["full", "min_object", "all_present", "full_drop", "min_object_drop"]);
        let pixels = |name: &str, colour: [u8; 3]| {
            let figure = figures.iter().find(|figure| figure.name == name).unwrap();
            figure.picture.pixels().chunks(3).filter(|pixel| *pixel == colour).count()
        };
        // The baseline keeps its colour, and nothing drops against itself.
        assert!(pixels("full", COLOURS[0]) > 1000 && pixels("full", COLOURS[1]) > 1000);
        assert!(pixels("full_drop", COLOURS[0]) > 1000);
        assert_eq!(pixels("full_drop", COLOURS[1]), 0);
        let nothing =
            crate::report::Input { rows: &[], problems: &[], baseline: "none", resamples: 1 };
        assert!(super::figures(&Report::new(nothing)).is_empty());
    }

    /// Two of the paper's own: plain and composable, animals, full prompt.
    #[test]
    fn a_drop_is_a_share_of_the_best() {
        assert!((drop_of(0.311, 0.332) - 6.325).abs() < 1e-3);
        assert!((drop_of(0.284, 0.332) - 14.458).abs() < 1e-3);
        assert!(drop_of(0.4, 0.332) < 0.);
    }

    #[test]
    fn numbers_are_short() {
        for (value, decimals, want) in [
            (0.3321, 3, ".332"),
            (-0.05, 2, "-.05"),
            (1., 3, "1.000"),
            (61.4, 0, "61"),
            (0.4, 0, "0"),
        ] {
            assert_eq!(short(value, decimals), want);
        }
    }
}
