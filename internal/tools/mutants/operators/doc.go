// Package operators makes mutants of Go source by fixed operators: small
// changes that a good test suite notices. [Mutants] names the changes of one
// file; [Schema] puts all of them into one text, in which an environment
// variable selects the one that runs, so that one build serves them all.
//
// The operators:
//
//	negate      the condition of an if, a loop or a case: x becomes !(x)
//	boundary    < becomes <=, <= becomes <, > becomes >=, >= becomes >
//	comparison  a comparison inside a larger condition becomes its opposite
//	logical     && becomes ||, || becomes &&
//	operand     x && y or x || y becomes x, or y
//	not         !x becomes x
//	arithmetic  + becomes -, * becomes /, += becomes -=, ++ becomes --, and so on
//	literal     a whole number n becomes n+1, or n-1 where n > 0
//	remove      a call, an assignment, a guard or a loop is left out
//	case        a case of a switch is left out
//	jump        break becomes continue, continue becomes break
//	result      a returned value becomes the zero value of its type; an error nil;
//	            a bool true, or false
//	arguments   two neighbouring arguments of a call change places
//	minmax      min becomes max, max becomes min
//	enum        a constant of an enumeration becomes its neighbour
//	refusal     the code of a refusal becomes another code
//	field       a field of a composite literal is left out
//
// Only function bodies are changed. Texts for people, the formats of errors and
// what goes into them, are left alone. A change that does not compile is no
// mutant.
package operators
