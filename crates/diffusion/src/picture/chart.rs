//! Line charts of what a run measured at each step, such as the loss of every subject.
//!
//! One size, one look, no options. Not here: what is measured, and numbers for programs.

use embedded_graphics::geometry::Point;
use embedded_graphics::primitives::{Circle, Triangle};
use embedded_graphics::text::Alignment;

use super::Picture;
use super::draw::{
    BODY, DARK, MUTED, RULE, TITLE, WHITE, cut, fill, line, line_height, rectangle, scaled, text,
    text_width, wrap,
};

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// In the legend.
    pub label: String,
    /// One value for each x from 0; what is not finite leaves a gap.
    pub values: Vec<f32>,
}

/// What is drawn. An empty title or label takes no room.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// At most two lines.
    pub title: String,
    /// Under the x axis.
    pub x_label: String,
    /// Over the y axis.
    pub y_label: String,
    /// Drawn in order, the first ones below.
    pub series: Vec<Series>,
    /// Dashed vertical lines: x and a short label, such as "refined x20". Labels that find no
    /// room are left out, their lines are not.
    pub markers: Vec<(usize, String)>,
}

const WIDTH: i32 = 760;
const HEIGHT: i32 = 380;
const MARGIN: i32 = 16;
/// Lines are drawn this much larger and then reduced, which smooths them.
const FINE: i32 = 4;
/// From the frame to the first and last point, so that they stand clear of it.
const INSET: i32 = 10;
const LEGEND_LINE: i32 = 18;
const LEGEND_TEXT_MAX: i32 = 150;
/// The sample of the line in the legend.
const SAMPLE: i32 = 24;
/// Points nearer than this would merge into the line.
const POINT_GAP_MIN: f64 = 7.;
/// Labels of markers stand in at most so many rows.
const NOTE_ROWS: usize = 3;

/// Okabe and Ito's colours, which colour-blind people can tell apart, without the yellow that is
/// too pale on white.
pub const COLOURS: [[u8; 3]; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [0, 0, 0],
];

impl Chart {
    /// The chart, 760 by 380 pixels. The y axis starts at zero, or ends there if all is negative.
    pub fn draw(&self) -> Picture {
        let frame = Frame::new(self);
        let mut picture = self.shapes(&frame);
        self.texts(&frame, &mut picture);
        picture
    }

    /// Grid, markers, lines and legend samples, smoothed.
    fn shapes(&self, frame: &Frame) -> Picture {
        let mut large = Picture::filled((WIDTH * FINE) as u32, (HEIGHT * FINE) as u32, WHITE);
        let mut bar = |x: i32, y: i32, width: i32, height: i32, colour| {
            let place = (x * FINE, y * FINE);
            rectangle(&mut large, place, (width * FINE, height * FINE), colour);
        };
        let width = frame.right - frame.left;
        for tick in frame.low_tick..=frame.high_tick {
            let y = frame.y(tick as f64 * frame.step).round() as i32;
            bar(frame.left, y, width, 1, if tick == 0 { MUTED } else { RULE });
        }
        for x in frame.x_ticks() {
            bar(frame.x(x).round() as i32, frame.bottom + 1, 1, 4, MUTED);
        }
        for (at, _) in self.markers.iter().filter(|(at, _)| *at < frame.count) {
            let x = frame.x(*at).round() as i32;
            for y in (frame.top..frame.bottom).step_by(7) {
                bar(x, y, 1, 4.min(frame.bottom - y), [150; 3]);
            }
        }
        for (i, series) in self.series.iter().enumerate() {
            curve(&mut large, frame, i, &series.values);
        }
        for (i, y) in self.legend(frame) {
            let middle = (f64::from(frame.legend + SAMPLE / 2), f64::from(y + LEGEND_LINE / 2 - 1));
            let end = |by: i32| fine((middle.0 + f64::from(by), middle.1)).into();
            line(&mut large, end(-SAMPLE / 2), end(SAMPLE / 2), 2 * FINE as u32, colour(i));
            point(&mut large, i, middle);
        }
        scaled(&large, WIDTH as u32, HEIGHT as u32)
    }

    fn texts(&self, frame: &Frame, picture: &mut Picture) {
        for (i, title) in frame.title.iter().enumerate() {
            let y = MARGIN - 4 + i as i32 * line_height(TITLE);
            text(picture, TITLE, (MARGIN, y), title, DARK, Alignment::Left);
        }
        let y_label = cut(BODY, &self.y_label, frame.right - MARGIN);
        text(picture, BODY, (MARGIN, frame.y_label), &y_label, MUTED, Alignment::Left);
        let x_label = cut(BODY, &self.x_label, frame.right - frame.left);
        let (middle, y) = ((frame.left + frame.right) / 2, HEIGHT - MARGIN - 9);
        text(picture, BODY, (middle, y), &x_label, MUTED, Alignment::Center);

        for tick in frame.low_tick..=frame.high_tick {
            let y = frame.y(tick as f64 * frame.step).round() as i32 - 6;
            let label = number(tick, frame.step);
            text(picture, BODY, (frame.left - 6, y), &label, MUTED, Alignment::Right);
        }
        for x in frame.x_ticks() {
            let place = (frame.x(x).round() as i32, frame.bottom + 7);
            text(picture, BODY, place, &x.to_string(), MUTED, Alignment::Center);
        }
        for (x, row, label) in &frame.notes {
            let y = frame.top - 2 - (*row as i32 + 1) * line_height(BODY);
            text(picture, BODY, (*x, y), label, MUTED, Alignment::Left);
        }
        let shown = self.legend(frame).count();
        for (i, y) in self.legend(frame) {
            let label = cut(BODY, &self.series[i].label, LEGEND_TEXT_MAX);
            let x = frame.legend + SAMPLE + 8;
            text(picture, BODY, (x, y + 1), &label, DARK, Alignment::Left);
        }
        if frame.legend < WIDTH && shown < self.series.len() {
            let more = format!("and {} more", self.series.len() - shown);
            let place = (frame.legend, frame.top + shown as i32 * LEGEND_LINE);
            text(picture, BODY, place, &more, MUTED, Alignment::Left);
        }
    }

    /// Index and top of each series in the legend; what is left leaves a line for "and 3 more".
    fn legend(&self, frame: &Frame) -> impl Iterator<Item = (usize, i32)> {
        let room = ((frame.bottom - frame.top) / LEGEND_LINE) as usize;
        let count = if frame.legend == WIDTH {
            0
        } else if self.series.len() > room {
            room - 1
        } else {
            self.series.len()
        };
        let top = frame.top;
        (0..count).map(move |i| (i, top + i as i32 * LEGEND_LINE))
    }
}

/// A line through the finite values with their points.
fn curve(large: &mut Picture, frame: &Frame, series: usize, values: &[f32]) {
    let finite = |x: usize| values.get(x).copied().filter(|v| v.is_finite());
    let place = |x: usize| finite(x).map(|v| (frame.x(x), frame.y(f64::from(v))));
    let wide = frame.count < 2 || frame.x(1) - frame.x(0) >= POINT_GAP_MIN;
    for x in 0..values.len() {
        let Some(here) = place(x) else { continue };
        // The disc rounds the corner between two strokes.
        let joint = Circle::with_center(fine(here), 2 * FINE as u32);
        fill(large, joint, colour(series));
        let next = place(x + 1);
        if let Some(next) = next {
            line(large, fine(here).into(), fine(next).into(), 2 * FINE as u32, colour(series));
        }
        let alone = next.is_none() && (x == 0 || place(x - 1).is_none());
        if wide || alone {
            point(large, series, here);
        }
    }
}

/// A series' mark. Seven colours and four shapes tell 28 series apart.
fn point(large: &mut Picture, series: usize, place: (f64, f64)) {
    let (centre, colour, half) = (fine(place), colour(series), 3 * FINE);
    let at = |x: i32, y: i32| centre + Point::new(x, y);
    match series % 4 {
        0 => fill(large, Circle::with_center(centre, 2 * half as u32 + 2), colour),
        1 => {
            let corner = at(1 - half, 1 - half);
            rectangle(large, corner.into(), (2 * half - 2, 2 * half - 2), colour);
        }
        2 => {
            let (low, wide) = (half - 1, half + 3);
            fill(large, Triangle::new(at(0, -wide), at(-wide, low), at(wide, low)), colour);
        }
        _ => {
            let half = half + 4;
            fill(large, Triangle::new(at(-half, 0), at(half, 0), at(0, -half)), colour);
            fill(large, Triangle::new(at(-half, 0), at(half, 0), at(0, half)), colour);
        }
    }
}

fn colour(series: usize) -> [u8; 3] {
    COLOURS[series % COLOURS.len()]
}

/// The middle of a pixel of the chart in the larger drawing.
fn fine((x, y): (f64, f64)) -> Point {
    let fine = |v: f64| ((v + 0.5) * f64::from(FINE)).round() as i32;
    Point::new(fine(x), fine(y))
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
    /// Left of the legend; `WIDTH` if there is none.
    legend: i32,
    /// Length of the longest series.
    count: usize,
    /// Ticks of y are the multiples of `step` from `low_tick` to `high_tick`.
    step: f64,
    low_tick: i64,
    high_tick: i64,
    /// Labels of markers: left, row from below, text.
    notes: Vec<(i32, usize, String)>,
}

impl Frame {
    fn new(chart: &Chart) -> Self {
        let values = || chart.series.iter().flat_map(|series| &series.values);
        let finite = || values().filter(|v| v.is_finite()).map(|v| f64::from(*v));
        let (mut low, mut high) = (finite().fold(0., f64::min), finite().fold(0., f64::max));
        if low == high {
            (low, high) = (0., 1.);
        }
        let step = round_step((high - low) / 5.);
        // An f32 just above a round number does not need another tick.
        let (low_tick, high_tick) =
            ((low / step + 1e-6).floor() as i64, (high / step - 1e-6).ceil() as i64);
        let ticks = (low_tick..=high_tick).map(|tick| text_width(BODY, &number(tick, step)));
        let labels = chart.series.iter().map(|series| text_width(BODY, &series.label));
        let legend = match labels.max() {
            Some(width) if width > 0 => WIDTH - MARGIN - SAMPLE - 8 - width.min(LEGEND_TEXT_MAX),
            _ => WIDTH,
        };
        let title = wrap(TITLE, &chart.title, WIDTH - 2 * MARGIN, 2);
        let y_label = MARGIN + title.len() as i32 * line_height(TITLE);
        let band = |label: &str| if label.is_empty() { 0 } else { line_height(BODY) + 3 };
        let mut frame = Self {
            title,
            y_label,
            left: MARGIN + ticks.max().unwrap_or(0) + 6,
            right: legend - MARGIN,
            top: y_label + band(&chart.y_label) + 12,
            bottom: HEIGHT - MARGIN - 22 - band(&chart.x_label),
            legend,
            count: chart.series.iter().map(|series| series.values.len()).max().unwrap_or(0),
            step,
            low_tick,
            high_tick,
            notes: Vec::new(),
        };
        frame.place_notes(&chart.markers);
        frame
    }

    /// Puts each marker's label over its line, in the lowest row where it is free.
    fn place_notes(&mut self, markers: &[(usize, String)]) {
        for (at, label) in
            markers.iter().filter(|(at, label)| *at < self.count && !label.is_empty())
        {
            let label = cut(BODY, label, LEGEND_TEXT_MAX);
            let width = text_width(BODY, &label);
            let x = (self.x(*at).round() as i32 - width / 2).min(self.right - width).max(self.left);
            let free = |row: &usize| {
                self.notes.iter().all(|(left, taken, other)| {
                    taken != row || x > left + text_width(BODY, other) + 7 || left - 7 > x + width
                })
            };
            if let Some(row) = (0..NOTE_ROWS).find(free) {
                self.notes.push((x, row, label));
            }
        }
        let rows = self.notes.iter().map(|(_, row, _)| row + 1).max().unwrap_or(0);
        self.top += rows as i32 * line_height(BODY);
    }

    fn x(&self, at: usize) -> f64 {
        let (left, right) = (f64::from(self.left + INSET), f64::from(self.right - INSET));
        match self.count {
            0 | 1 => (left + right) / 2.,
            count => left + (right - left) * at as f64 / (count - 1) as f64,
        }
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = (self.low_tick as f64 * self.step, self.high_tick as f64 * self.step);
        let (top, bottom) = (f64::from(self.top), f64::from(self.bottom));
        bottom - (bottom - top) * (value - low) / (high - low)
    }

    fn x_ticks(&self) -> impl Iterator<Item = usize> + use<> {
        let step = round_step(self.count.saturating_sub(1) as f64 / 12.).max(1.);
        (0..self.count).step_by(step as usize)
    }
}

/// The next 1, 2 or 5 times a power of ten, or 1 for zero.
pub fn round_step(least: f64) -> f64 {
    if least <= 0. {
        return 1.;
    }
    let power = 10f64.powf(least.log10().floor());
    let times = [1., 2., 5.].into_iter().find(|times| times * power >= least * (1. - 1e-9));
    times.unwrap_or(10.) * power
}

/// The label of a tick with the decimals its step needs.
pub fn number(tick: i64, step: f64) -> String {
    let value = tick as f64 * step;
    if tick != 0 && !(1e-4..1e5).contains(&step) {
        return format!("{value:.1e}");
    }
    let decimals = (-(step * (1. + 1e-9)).log10().floor()).clamp(0., 4.) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: [u8; 3] = COLOURS[0];

    fn chart(values: &[f32]) -> Chart {
        let series = vec![Series { label: String::new(), values: values.to_vec() }];
        Chart { series, ..Chart::default() }
    }

    fn has(picture: &Picture, (x, y): (f64, f64), colour: [u8; 3]) -> bool {
        picture.get(x.round() as u32, y.round() as u32) == colour
    }

    #[test]
    fn the_line_goes_through_its_values() {
        let chart = chart(&[0., 1., 0.5, f32::NAN, 0.25]);
        let (picture, frame) = (chart.draw(), Frame::new(&chart));
        let (left, right) = (f64::from(frame.left + INSET), f64::from(frame.right - INSET));
        let (top, bottom) = (f64::from(frame.top), f64::from(frame.bottom));
        let place = |x: f64, y: f64| (left + (right - left) * x, bottom - (bottom - top) * y);
        for (x, y, drawn) in [
            (0., 0., true),
            (0.25, 1., true),
            (0.125, 0.5, true), // halfway up the first stroke
            (0.5, 0.5, true),
            (1., 0.25, true),
            (0.625, 0.45, false),
            (0.25, 0., false),
        ] {
            assert_eq!(has(&picture, place(x, y), BLUE), drawn, "at {x}, {y}");
        }
        let gap = (0.52 * (right - left) + left) as u32..(0.97 * (right - left) + left) as u32;
        for x in gap {
            assert!((0..380).all(|y| picture.get(x, y) != BLUE), "the gap at {x}");
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (values, low, high, step) in [
            (&[0.3, 0.1][..], 0., 0.3, 0.1),
            (&[0.97], 0., 1., 0.2),
            (&[18.], 0., 20., 5.),
            (&[-0.4, 1.1], -0.5, 1.5, 0.5),
            (&[-3., -1.], -3., 0., 1.),
            (&[0., 0.], 0., 1., 0.2),
            (&[f32::NAN, f32::INFINITY], 0., 1., 0.2),
            (&[], 0., 1., 0.2),
        ] {
            let frame = Frame::new(&chart(values));
            let ends = (frame.low_tick as f64 * frame.step, frame.high_tick as f64 * frame.step);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            let right = near(ends.0, low) && near(ends.1, high) && near(frame.step, step);
            assert!(right, "{values:?}: {ends:?} by {}", frame.step);
        }
        for (tick, step, label) in [
            (3, 0.1, "0.3"),
            (-1, 0.05, "-0.05"),
            (0, 0.2, "0.0"),
            (4, 5., "20"),
            (2, 2e7, "4.0e7"),
        ] {
            assert_eq!(number(tick, step), label);
        }
    }

    #[test]
    fn marker_labels_do_not_overlap_and_stay_inside() {
        let markers: Vec<_> = (0..12).map(|at| (at, format!("refined x{at}0"))).collect();
        let chart = Chart { markers, ..chart(&[1.; 10]) };
        let frame = Frame::new(&chart);
        assert!(frame.notes.len() >= 8, "{:?}", frame.notes);
        for (i, (x, row, label)) in frame.notes.iter().enumerate() {
            let end = x + text_width(BODY, label);
            assert!(*x >= frame.left && end <= frame.right, "{label} at {x}");
            for (other_x, other_row, other) in &frame.notes[..i] {
                let apart = *other_x > end || *x > other_x + text_width(BODY, other);
                assert!(row != other_row || apart, "{label} and {other}");
            }
        }
    }

    #[test]
    fn any_chart_can_be_drawn_within_its_margins() {
        let long = "an extraordinarily long text ".repeat(9);
        let many = |count: usize| Chart {
            title: long.clone(),
            x_label: long.clone(),
            y_label: long.clone(),
            series: vec![Series { label: long.clone(), values: vec![0.5; 40] }; count],
            markers: vec![(0, long.clone()), (39, long.clone()), (usize::MAX, long.clone())],
        };
        for (case, chart) in [
            ("empty", Chart::default()),
            ("no values", chart(&[])),
            ("one value", chart(&[2.])),
            ("nothing finite", chart(&[f32::NAN, f32::NEG_INFINITY])),
            ("the largest", chart(&[f32::MAX, f32::MIN])),
            ("the smallest", chart(&[f32::from_bits(1)])),
            ("long", chart(&[1.; 5000])),
            ("long labels", many(1)),
            ("more series than the legend holds", many(50)),
        ] {
            let picture = chart.draw();
            assert_eq!((picture.width(), picture.height()), (760, 380), "{case}");
            for y in 0..380 {
                let blank = |x: u32| picture.get(x, y) == WHITE;
                assert!((0..10).chain(750..760).all(blank), "{case}: margin at {y}");
            }
        }
    }
}
