package proc

import (
	"strconv"
	"strings"
)

// Unescape undoes the octal escapes with which the kernel writes a space, a tab, a newline, a backslash or a '#' in a field
// of mountinfo.
func Unescape(field string) string {
	if !strings.Contains(field, `\`) {
		return field
	}
	var plain strings.Builder
	for i := 0; i < len(field); i++ {
		if field[i] == '\\' && i+3 < len(field) {
			if value, err := strconv.ParseUint(field[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(value))
				i += 3
				continue
			}
		}
		plain.WriteByte(field[i])
	}
	return plain.String()
}
