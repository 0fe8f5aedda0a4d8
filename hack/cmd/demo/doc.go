// Command demo plays the recipe from an empty machine to verified evidence and says what it has proven.
package main
