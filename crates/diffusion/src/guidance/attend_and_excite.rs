//! Attend-and-Excite (Chefer et al., SIGGRAPH 2023): the loss is one minus the attention of the
//! weakest subject.
//!
//! From the mean map of a pass: cut the tokens that compete, sharpen them with a second softmax,
//! smooth each subject's map, take its maximum as the subject's score. Constants follow the
//! authors' code (section 3.2 of the paper leaves some open); the options are those of
//! [`excite_jobs::AttendAndExcite`].

use candle_core::{Device, Result, Tensor};
use excite_jobs::{AttendAndExcite, Pieces, Smoothing, TokenRange};
use excite_prompt::{CONTEXT, Subject};

use super::{Objective, Schedule, step_size};
use crate::error::Error;
use crate::layers::{Conv2d, Shape, softmax};

/// The subjects of one image and how their maps are scored.
#[derive(Clone)]
pub struct Subjects {
    params: AttendAndExcite,
    /// Token positions, one list a subject.
    indices: Vec<Vec<u32>>,
    /// First position and number of the tokens in the second softmax.
    range: (usize, usize),
    smooth: Option<Conv2d>,
    /// For each subject the piece that counts, once it is known.
    pieces: Vec<Option<usize>>,
}

/// One evaluation of the loss.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Here `max(0, 1 - least score)`; other methods have losses of their own.
    pub loss: f32,
    /// The maximum of each subject's smoothed map; empty where a method does not look at that.
    pub scores: Vec<f32>,
    /// The loss with its graph; `None` where there is nothing to move.
    pub tensor: Option<Tensor>,
}

/// How one subject's map becomes its score, for those who want to see it. All `[h * w]`, row-major.
#[derive(Debug, Clone)]
pub struct Stages {
    /// The mean of the cross-attention probabilities over layers and heads.
    pub attention: Vec<f32>,
    /// After the second softmax, where the subject competes with the other tokens.
    pub sharpened: Vec<f32>,
    /// After smoothing; its largest value is the score.
    pub smoothed: Vec<f32>,
}

impl Subjects {
    /// `eot` is the position of the end-of-text token in the prompt.
    ///
    /// # Errors
    /// If there is no subject, or a position lies outside the prompt or the competing tokens.
    pub fn new(params: &AttendAndExcite, subjects: &[Subject], eot: usize) -> crate::Result<Self> {
        let range = match params.tokens {
            // The authors' slice drops the last column too; a pad token for any normal prompt.
            TokenRange::Content => (1, CONTEXT - 2),
            TokenRange::Prompt => (1, eot.saturating_sub(1)),
            TokenRange::All => (1, CONTEXT - 1),
        };
        let indices: Vec<Vec<u32>> = subjects.iter().map(|s| s.indices.clone()).collect();
        let allowed = 1..(range.0 + range.1).min(eot.max(1));
        let outside = |list: &Vec<u32>| {
            list.is_empty() || list.iter().any(|&i| !allowed.contains(&(i as usize)))
        };
        if indices.is_empty() || indices.iter().any(outside) {
            return Err(Error::Spec(format!(
                "`subjects` must name tokens {}..{} of the prompt, not {indices:?}",
                allowed.start, allowed.end
            )));
        }
        let pieces = indices
            .iter()
            .map(|list| match params.pieces {
                _ if list.len() == 1 => Some(0),
                Pieces::Last => Some(list.len() - 1),
                Pieces::Strongest | Pieces::Mean => None,
            })
            .collect();
        let smooth = smoothing(&params.smoothing)?;
        Ok(Self { params: params.clone(), indices, range, smooth, pieces })
    }

    /// Loss and scores of one image's map `[h * w, 77]` of `(h, w)` pixels. The first evaluation
    /// decides which piece of a word in several pieces counts.
    ///
    /// # Errors
    /// If the tensor library fails. Values that are not finite are the caller's to check.
    pub fn evaluate(&mut self, map: &Tensor, size: (usize, usize)) -> crate::Result<Evaluation> {
        let (scores, maps) = self.scores(map, size)?;
        let chosen: Vec<(f32, Tensor)> = scores
            .into_iter()
            .zip(maps)
            .zip(&mut self.pieces)
            .map(|((scores, maps), piece)| {
                let strongest = argmax(&scores);
                let piece = if scores.len() == 1 { 0 } else { *piece.get_or_insert(strongest) };
                Ok((scores[piece], maps.get(piece)?))
            })
            .collect::<Result<_>>()?;
        let scores: Vec<f32> = chosen.iter().map(|(score, _)| *score).collect();
        // The first of equals, as in the authors' code. NaN compares false, so it is looked for.
        let weakest = (0..scores.len()).find(|&s| scores[s].is_nan()).unwrap_or_else(|| {
            (0..scores.len()).fold(0, |w, s| if scores[s] < scores[w] { s } else { w })
        });
        let loss = 1. - scores[weakest];
        if loss <= 0. {
            return Ok(Evaluation { loss: 0., scores, tensor: None });
        }
        let map = chosen[weakest].1.flatten_all()?;
        let values = map.to_vec1::<f32>()?;
        let peak = map.get(argmax(&values))?;
        Ok(Evaluation { loss, scores, tensor: Some(peak.affine(-1., 1.)?) })
    }

    /// What [`Subjects::evaluate`] does to the map of the first token of subject `subject`.
    ///
    /// # Errors
    /// If there is no such subject, or the tensor library fails.
    pub fn stages(
        &self,
        map: &Tensor,
        (h, w): (usize, usize),
        subject: usize,
    ) -> crate::Result<Stages> {
        let token = self.indices.get(subject).and_then(|list| list.first()).copied();
        let token = token.ok_or_else(|| Error::Spec(format!("there is no subject {subject}")))?;
        let sharpened = self.sharpen(map)?;
        let column = sharpened.narrow(1, token as usize - self.range.0, 1)?.contiguous()?;
        let smoothed = self.smooth(&column.reshape((1, h, w))?)?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok(Stages {
            attention: values(&map.narrow(1, token as usize, 1)?)?,
            sharpened: values(&column)?,
            smoothed: values(&smoothed)?,
        })
    }

    /// The second softmax, over the tokens that compete: `[pixels, tokens]`.
    fn sharpen(&self, map: &Tensor) -> Result<Tensor> {
        let (start, count) = self.range;
        let tokens = map.narrow(1, start, count)?.contiguous()?;
        softmax(&(tokens * self.params.gain)?)
    }

    /// For each subject the scores of its pieces and their smoothed maps `[pieces, h, w]`.
    fn scores(&self, map: &Tensor, (h, w): (usize, usize)) -> Result<(Vec<Vec<f32>>, Vec<Tensor>)> {
        let sharpened = self.sharpen(map)?;
        let start = self.range.0 as u32;
        let columns: Vec<u32> = self.indices.concat().iter().map(|i| i - start).collect();
        let columns = Tensor::new(columns, map.device())?;
        // [pixels, tokens] to [subject tokens, h, w]
        let maps = sharpened.index_select(&columns, 1)?.t()?.contiguous()?.reshape(((), h, w))?;
        let (mut first, mut scores, mut smoothed) = (0, Vec::new(), Vec::new());
        for list in &self.indices {
            let mut maps = maps.narrow(0, first, list.len())?;
            first += list.len();
            if self.params.pieces == Pieces::Mean && list.len() > 1 {
                maps = maps.mean_keepdim(0)?;
            }
            let maps = self.smooth(&maps)?;
            let values = maps.flatten_from(1)?.to_vec2::<f32>()?;
            scores.push(values.iter().map(|values| values[argmax(values)]).collect());
            smoothed.push(maps);
        }
        Ok((scores, smoothed))
    }

    fn smooth(&self, maps: &Tensor) -> Result<Tensor> {
        let Some(kernel) = &self.smooth else { return Ok(maps.clone()) };
        let pad = self.params.smoothing.kernel_size as usize / 2;
        let padded = reflect(&reflect(maps, 1, pad)?, 2, pad)?;
        kernel.forward(&padded.unsqueeze(1)?)?.squeeze(1)
    }

    /// The mean of each subject's columns of a map `[h * w, 77]`: `[subjects, h * w]`, row-major.
    pub(crate) fn columns(&self, map: &Tensor) -> Result<Vec<Vec<f32>>> {
        let column = |list: &Vec<u32>| {
            let columns = Tensor::new(list.as_slice(), map.device())?;
            map.index_select(&columns, 1)?.mean(1)?.to_vec1::<f32>()
        };
        self.indices.iter().map(column).collect()
    }
}

impl Objective for Subjects {
    fn evaluate(&mut self, map: &Tensor, size: (usize, usize)) -> crate::Result<Evaluation> {
        self.evaluate(map, size)
    }

    fn schedule(&self, asked: u32, count: usize) -> Schedule {
        schedule(&self.params, asked, count)
    }

    /// Which piece counts, per subject; -1 while it is open.
    fn pieces(&self) -> Vec<i64> {
        self.pieces.iter().map(|piece| piece.map_or(-1, |p| p as i64)).collect()
    }

    fn restore(&mut self, pieces: &[i64]) {
        for ((piece, &saved), list) in self.pieces.iter_mut().zip(pieces).zip(&self.indices) {
            *piece = usize::try_from(saved).ok().filter(|&p| p < list.len());
        }
    }

    fn boxed(&self) -> Box<dyn Objective> {
        Box::new(self.clone())
    }
}

/// As the options say.
pub(super) fn schedule(params: &AttendAndExcite, asked: u32, count: usize) -> Schedule {
    Schedule {
        updates_before: params.max_iter_to_alter as usize,
        step_sizes: (0..count).map(|step| step_size(params, step, count)).collect(),
        thresholds: params.thresholds_for(asked),
        rule: params.refinement,
        max: params.max_refinement_steps,
    }
}

/// Position of the largest value, the first of equals.
pub(super) fn argmax(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Mirrors `pad` entries at both ends of an axis without repeating the edge.
fn reflect(x: &Tensor, axis: usize, pad: usize) -> Result<Tensor> {
    let n = x.dim(axis)? as i64;
    if n == 1 {
        return x.repeat(match axis {
            1 => (1, 2 * pad + 1, 1),
            _ => (1, 1, 2 * pad + 1),
        });
    }
    let period = 2 * (n - 1);
    let source = |i: i64| {
        let i = i.rem_euclid(period);
        i.min(period - i) as u32
    };
    let pad = pad as i64;
    let indices: Vec<u32> = (-pad..n + pad).map(source).collect();
    x.contiguous()?.index_select(&Tensor::new(indices, x.device())?, axis)
}

/// The normalised smoothing kernel. The authors' code has the exponent -(d / 2 sigma)^2 instead of
/// a Gaussian's -d^2 / (2 sigma^2), so its standard deviation is sigma * sqrt(2).
fn smoothing(options: &Smoothing) -> Result<Option<Conv2d>> {
    let size = options.kernel_size as usize;
    if size <= 1 {
        return Ok(None);
    }
    let exponent = |d: f64| {
        if options.textbook {
            -d * d / (2. * options.sigma * options.sigma)
        } else {
            -(d / (2. * options.sigma)).powi(2)
        }
    };
    let middle = (size / 2) as f64;
    let line: Vec<f64> = (0..size).map(|i| exponent(i as f64 - middle).exp()).collect();
    let total: f64 = line.iter().sum();
    let kernel: Vec<f32> = line
        .iter()
        .flat_map(|y| line.iter().map(move |x| (y * x / (total * total)) as f32))
        .collect();
    let kernel = Tensor::from_vec(kernel, (1, 1, size, size), &Device::Cpu)?;
    Ok(Some(Conv2d::new(&kernel, None, Shape::unpadded(size))?))
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::Var;

    use super::*;

    pub(in crate::guidance) const SIDE: usize = 16;

    /// `A[y, x, n]` = softmax over n of sin(0.3y + 0.7n) + cos(0.2x - 0.5n) + 0.05 (n mod 5).
    pub(in crate::guidance) fn map() -> Tensor {
        let logits: Vec<f32> = (0..SIDE * SIDE * CONTEXT)
            .map(|i| {
                let (p, n) = (i / CONTEXT, i % CONTEXT);
                let (y, x, n) = ((p / SIDE) as f64, (p % SIDE) as f64, n as f64);
                let value = (0.3 * y + 0.7 * n).sin() + (0.2 * x - 0.5 * n).cos();
                (value + 0.05 * (n % 5.)) as f32
            })
            .collect();
        let logits = Tensor::from_vec(logits, (SIDE * SIDE, CONTEXT), &Device::Cpu).unwrap();
        softmax(&logits).unwrap()
    }

    fn subjects(tokens: TokenRange, indices: &[&[u32]], pieces: Pieces) -> Subjects {
        let params = AttendAndExcite { tokens, pieces, ..AttendAndExcite::official() };
        let subject = |indices: &&[u32]| Subject { word: "x".into(), indices: indices.to_vec() };
        let eot = if tokens == TokenRange::Prompt { 6 } else { 20 };
        let list: Vec<_> = indices.iter().map(subject).collect();
        Subjects::new(&params, &list, eot).unwrap()
    }

    /// Values of diffusers' own functions on the same map.
    #[test]
    fn losses_are_those_of_the_reference() {
        use TokenRange::{All, Content, Prompt};
        type Row = (&'static [&'static [u32]], TokenRange, &'static [f32], f32);
        #[rustfmt::skip]
        let table: [Row; 5] = [
            (&[&[2], &[5]],       Content, &[0.206_605_3, 0.133_274_9],              0.866_725_1),
            (&[&[2]],             Content, &[0.206_605_3],                           0.793_394_7),
            (&[&[1], &[3], &[6]], Content, &[0.145_611_8, 0.108_600_3, 0.148_476_3], 0.891_399_7),
            (&[&[2], &[5]],       Prompt,  &[0.666_226_6, 0.822_805],              0.333_773_4),
            (&[&[2], &[5]],       All,     &[0.205_567_9, 0.132_975_5],              0.867_024_5),
        ];
        for (indices, tokens, scores, loss) in table {
            let mut subjects = subjects(tokens, indices, Pieces::Strongest);
            let got = subjects.evaluate(&map(), (SIDE, SIDE)).unwrap();
            assert!((got.loss - loss).abs() < 2e-6, "{indices:?} {tokens:?}: {}", got.loss);
            for (got, want) in got.scores.iter().zip(scores) {
                assert!((got - want).abs() < 2e-6, "{indices:?} {tokens:?}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_reference() {
        let map = Var::from_tensor(&map()).unwrap();
        let mut subjects = subjects(TokenRange::Content, &[&[2], &[5]], Pieces::Strongest);
        let loss = subjects.evaluate(map.as_tensor(), (SIDE, SIDE)).unwrap().tensor.unwrap();
        let store = loss.backward().unwrap();
        let gradient = store.get(map.as_tensor()).unwrap().to_vec2::<f32>().unwrap();
        let total: f32 = gradient.iter().flatten().map(|g| g.abs()).sum();
        assert!((total - 23.088_18).abs() < 1e-3, "{total}");
        let touched: Vec<usize> =
            (0..gradient.len()).filter(|&p| gradient[p].iter().any(|g| *g != 0.)).collect();
        assert_eq!(touched.len(), 6, "{touched:?}");
        assert!((gradient[15 * SIDE + 12][5] + 3.922_739).abs() < 1e-4);
        assert!(gradient.iter().all(|pixel| pixel[0] == 0. && pixel[76] == 0.));
    }

    #[test]
    fn the_kernel_is_the_authors_unless_the_textbook_is_asked_for() {
        let kernel = |textbook| {
            let options = Smoothing { textbook, ..AttendAndExcite::official().smoothing };
            let conv = smoothing(&options).unwrap().unwrap();
            let impulse = Tensor::from_vec(
                (0..25).map(|i| if i == 12 { 1f32 } else { 0. }).collect::<Vec<_>>(),
                (1, 1, 5, 5),
                &Device::Cpu,
            );
            conv.forward(&impulse.unwrap())
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        let [authors, textbook] = [kernel(false), kernel(true)];
        for (got, want) in [
            (authors[0], 0.044_919_23),
            (authors[1], 0.122_103_12),
            (authors[4], 0.331_910_7),
            (textbook[4], 0.7870 * 0.7870),
        ] {
            assert!((got - want).abs() < 1e-4, "{got}, not {want}");
        }
    }

    #[test]
    fn the_first_evaluation_chooses_among_pieces() {
        let score = |pieces, indices: &[&[u32]]| {
            let mut subjects = subjects(TokenRange::Content, indices, pieces);
            let got = subjects.evaluate(&map(), (SIDE, SIDE)).unwrap();
            (got.scores[0], subjects.pieces())
        };
        let (two, five) = (score(Pieces::Last, &[&[2]]).0, score(Pieces::Last, &[&[5]]).0);
        assert!(two > five);
        assert_eq!(score(Pieces::Strongest, &[&[5, 2]]), (two, vec![1]));
        assert_eq!(score(Pieces::Last, &[&[2, 5]]), (five, vec![1]));
        let (mean, pieces) = score(Pieces::Mean, &[&[2, 5]]);
        assert!(mean < two && mean > 0. && pieces == [-1], "{mean} {pieces:?}");
        // Once chosen, a piece stays, also through a checkpoint.
        let mut resumed = subjects(TokenRange::Content, &[&[5, 2]], Pieces::Strongest);
        resumed.restore(&[0]);
        assert_eq!(resumed.evaluate(&map(), (SIDE, SIDE)).unwrap().scores[0], five);
    }

    #[test]
    fn attended_enough_means_no_loss_and_nan_is_not_hidden() {
        let mut all = vec![0f32; SIDE * SIDE * CONTEXT];
        all.iter_mut().skip(2).step_by(CONTEXT).for_each(|v| *v = 10.);
        let full = Tensor::from_vec(all.clone(), (SIDE * SIDE, CONTEXT), &Device::Cpu).unwrap();
        let mut one = subjects(TokenRange::Content, &[&[2]], Pieces::Last);
        let got = one.evaluate(&full, (SIDE, SIDE)).unwrap();
        assert!(got.loss < 1e-6, "{}", got.loss);
        all[5] = f32::NAN;
        let broken = Tensor::from_vec(all, (SIDE * SIDE, CONTEXT), &Device::Cpu).unwrap();
        let got = one.evaluate(&broken, (SIDE, SIDE)).unwrap();
        assert!(got.loss.is_nan(), "{}", got.loss);
    }

    #[test]
    fn positions_outside_the_prompt_are_refused() {
        for index in [0, 20, 77, u32::MAX] {
            let list = [Subject { word: "x".into(), indices: vec![index] }];
            let error = Subjects::new(&AttendAndExcite::official(), &list, 20);
            assert!(matches!(error, Err(Error::Spec(_))), "{index}");
        }
        assert!(Subjects::new(&AttendAndExcite::official(), &[], 20).is_err());
    }

    #[test]
    fn a_reflection_does_not_repeat_the_edge() {
        let x = Tensor::new(&[[[1f32, 2., 3.]]], &Device::Cpu).unwrap();
        let got = reflect(&x, 2, 2).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(got, [3., 2., 1., 2., 3., 2., 1.]);
    }
}
