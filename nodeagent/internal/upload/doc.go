// Package upload cuts a stream into locked objects of the write-once store while it flows.
//
// # Segments
//
// A segment ends after the Write that fills it, never within one: who hands over one compressed frame a Write gets
// segments that can each be read alone. It is completed, locked and reported before the next one begins.
//
// # Resuming
//
// Nothing is staged and nothing can be read back, so a stream resumes by being generated again. Its beginning is
// compared with the recorded segments, by their sizes and digests, and sent from the end of the last one. What a crash
// repeats is the segment that it came in.
//
// # Keys
//
// The agent may only put. Whether a key is taken is answered at the end of an upload, when the bytes are gone, so it is
// asked before: every try to store a segment takes a number by putting a small object <folder>/<number>.claim, which
// the store grants once, and then puts <folder>/<number>. Numbers rise over the life of an artifact, whoever tries. A
// number that is taken belongs to a try that did not live to record its segment, or to a stranger; the next one is
// tried. So the numbers below the last one that are not among the segments name every object that was given up, and
// without a crash the number of a segment is its index. A claim holds no evidence. A number whose put the store refused, or
// never got the end of, is used again by the process that claimed it: a store that is full for days uses up none.
package upload
