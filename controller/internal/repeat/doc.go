// Package repeat asks the API server again where its answer was none.
package repeat
