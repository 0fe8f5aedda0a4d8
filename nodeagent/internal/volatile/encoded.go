package volatile

import (
	"encoding/base64"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// maxEncoded bounds each kind of text that a process chooses, as JSON in its record: its mounts, the paths of its mappings, what
// its descriptors lead to, its arguments and its environment. Enough for 20,000 mappings with paths of 100 bytes.
const maxEncoded = 2 << 20

// encodedSize is the most that an evidence.Text takes as JSON before that is made canonical: a byte can take six.
func encodedSize(text string) int {
	if !utf8.ValidString(text) {
		return len(`{"bytes":""}`) + base64.StdEncoding.EncodedLen(len(text))
	}
	size := len(`""`)
	for _, char := range text {
		switch {
		case char < ' ' || char == '<' || char == '>' || char == '&' || char == '\u2028' || char == '\u2029':
			size += len(`\u0000`)
		case char == '"' || char == '\\':
			size += len(`\"`)
		default:
			size += utf8.RuneLen(char)
		}
	}
	return size
}

// beginning is as much of a text as takes no more room than there is.
func beginning(text string, room int) string {
	text = text[:min(len(text), max(room, 0))]
	if encodedSize(text) <= room {
		return text
	}
	return text[:sort.Search(len(text), func(end int) bool { return encodedSize(text[:end+1]) > room })]
}

// maxNamed is how many of the things that were cut are named.
const maxNamed = 20

// cuts counts what was cut, and names the first.
type cuts struct {
	total int
	first []string
}

func (c *cuts) add(name string) {
	if c.total++; c.total <= maxNamed {
		c.first = append(c.first, name)
	}
}

// String lists the first ones, and says how many more there are.
func (c *cuts) String() string {
	list := strings.Join(c.first, ", ")
	if more := c.total - len(c.first); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
