// Package acknowledge decides who may acknowledge an incident and stamps the acknowledgements that it admits.
package acknowledge
