//! Rectangles of a matrix that different threads write at the same time.
//!
//! This is the one place with `unsafe`. A thread that computes some columns of a result must write
//! into every row of it; slices cannot express that, since such parts interleave in memory.
//! [`rectangles`] cuts a matrix into parts that never overlap, and each part hands out only what
//! lies within it.

#![expect(unsafe_code, reason = "threads write interleaved, disjoint parts of one matrix")]

use std::marker::PhantomData;
use std::ops::Range;

/// A part of a matrix: some rows, and of these some columns.
pub(crate) struct Rectangle<'a> {
    /// The first element of the whole matrix.
    matrix: *mut f32,
    /// Columns of the whole matrix.
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    matrix_borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: a rectangle is the only one that reaches its elements (`rectangles` makes disjoint ones
// of a matrix that it borrows mutably), so moving it to another thread is moving a `&mut [f32]`.
unsafe impl Send for Rectangle<'_> {}

impl Rectangle<'_> {
    /// Writes the rows of a panel `[.., W]`, times a factor, from the first row on.
    #[inline(always)]
    pub(crate) fn write<const W: usize>(&mut self, panel: &[[f32; W]], factor: f32) {
        let range = self.columns();
        for (row, values) in self.rows().zip(panel) {
            for (target, value) in self.row(row, range.clone()).iter_mut().zip(values) {
                *target = value * factor;
            }
        }
    }

    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Some columns of a row, both counted as in the whole matrix.
    ///
    /// # Panics
    /// If they are not within this rectangle.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let inside = self.rows.contains(&row)
            && self.columns.start <= columns.start
            && columns.start <= columns.end
            && columns.end <= self.columns.end;
        assert!(inside, "row {row}, columns {columns:?} are outside of the rectangle");
        // SAFETY: `rectangles` saw that rows and columns lie within the matrix, which is borrowed
        // for the life of `self`; no other rectangle has these elements, and `&mut self` keeps the
        // slice the only one of this rectangle.
        unsafe {
            let start = self.matrix.add(row * self.width + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// Cuts a matrix of rows of `width` into rectangles of at most `height` rows and `columns` columns,
/// row by row.
///
/// # Panics
/// If the matrix does not consist of whole rows, or a side is 0.
pub(crate) fn rectangles(
    matrix: &mut [f32],
    width: usize,
    height: usize,
    columns: usize,
) -> Vec<Rectangle<'_>> {
    assert!(width > 0 && height > 0 && columns > 0, "rectangles need sides");
    assert!(matrix.len().is_multiple_of(width), "a matrix has whole rows");
    let rows = matrix.len() / width;
    let start = matrix.as_mut_ptr();
    let cuts = |whole: usize, part: usize| {
        (0..whole).step_by(part).map(move |from| from..(from + part).min(whole))
    };
    cuts(rows, height)
        .flat_map(|rows| {
            cuts(width, columns).map(move |columns| Rectangle {
                matrix: start,
                width,
                rows: rows.clone(),
                columns,
                matrix_borrowed: PhantomData,
            })
        })
        .collect()
}

/// Cuts each of several matrices `[rows, width]` that lie one behind the other; every part comes with
/// the number of its matrix.
pub(crate) fn of_each(
    matrices: &mut [f32],
    (rows, width): (usize, usize),
    height: usize,
    columns: usize,
) -> Vec<(usize, Rectangle<'_>)> {
    let matrices = matrices.chunks_exact_mut(rows * width).enumerate();
    let parts = matrices.flat_map(|(number, matrix)| {
        rectangles(matrix, width, height, columns).into_iter().map(move |part| (number, part))
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn rectangles_cover_a_matrix_once() {
        let mut matrix = vec![0f32; 7 * 11];
        rectangles(&mut matrix, 11, 3, 4).into_par_iter().for_each(|mut part| {
            for row in part.rows() {
                let columns = part.columns();
                for value in part.row(row, columns) {
                    *value += 1.;
                }
            }
        });
        assert!(matrix.iter().all(|value| *value == 1.));
    }

    #[test]
    #[should_panic(expected = "outside of the rectangle")]
    fn a_rectangle_gives_nothing_of_its_neighbours() {
        let mut matrix = vec![0f32; 8 * 8];
        let mut parts = rectangles(&mut matrix, 8, 4, 4);
        let _ = parts[0].row(1, 2..5);
    }
}
